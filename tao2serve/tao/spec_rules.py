"""What TAO itself demands of a training spec, as tables: its fields, and the values it refuses.

Fields are those of the protobuf files of tao_tensorflow1_backend (TAO 5.0), values those of detectnet_v2's
spec_handler/constants.py. Its validator knows fields by name alone, wherever they stand, and takes what is absent
as 0 or "". TAO has no list of fields to skip: one that it does not know ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["MESSAGES", "REQUIRED", "VALUES", "ValueRule"]

#: message → field → what it holds: string, bool, int, uint, float, `A|B` for names, a message of this table;
#: `*` repeats, `{X}` is a map from text to X.
MESSAGES: Final[Mapping[str, Mapping[str, str]]] = {
    message: dict(line.split() for line in lines.strip().splitlines())
    for message, lines in {
        "Experiment": """
            random_seed uint
            dataset_config DatasetConfig
            augmentation_config AugmentationConfig
            postprocessing_config PostProcessingConfig
            model_config ModelConfig
            evaluation_config EvaluationConfig
            cost_function_config CostFunctionConfig
            training_config TrainingConfig
            bbox_rasterizer_config BboxRasterizerConfig
            loss_mask_label_filter ObjectiveLabelFilter
            dataset_export_config Anything*""",
        "DataSource": """
            tfrecords_path string
            image_directory_path string
            source_weight float""",
        "DatasetConfig": """
            data_sources DataSource*
            image_extension string
            target_class_mapping {string}
            validation_fold uint
            validation_data_source DataSource
            dataloader_mode MULTISOURCE|LEGACY|DEFAULT
            sampling_mode USER_DEFINED|PROPORTIONAL|UNIFORM""",
        "AugmentationConfig": """
            preprocessing Preprocessing
            spatial_augmentation SpatialAugmentation
            color_augmentation ColorAugmentation""",
        "Preprocessing": """
            output_image_width uint
            output_image_height uint
            output_image_min uint
            output_image_max uint
            enable_auto_resize bool
            output_image_channel uint
            crop_left uint
            crop_top uint
            crop_right uint
            crop_bottom uint
            min_bbox_width float
            min_bbox_height float
            scale_width float
            scale_height float""",
        "SpatialAugmentation": """
            hflip_probability float
            vflip_probability float
            zoom_min float
            zoom_max float
            translate_max_x float
            translate_max_y float
            rotate_rad_max float
            rotate_probability float""",
        "ColorAugmentation": """
            color_shift_stddev float
            hue_rotation_max float
            saturation_shift_max float
            contrast_scale_max float
            contrast_center float""",
        "PostProcessingConfig": "target_class_config {PostProcessingClass}",
        "PostProcessingClass": """
            clustering_config ClusteringConfig
            confidence_config ConfidenceConfig""",
        "ClusteringConfig": """
            coverage_threshold float
            minimum_bounding_box_height int
            clustering_algorithm DBSCAN|NMS|HYBRID
            dbscan_eps float
            dbscan_min_samples int
            neighborhood_size int
            dbscan_confidence_threshold float
            nms_iou_threshold float
            nms_confidence_threshold float""",
        "ConfidenceConfig": """
            confidence_threshold float
            confidence_model_filename string
            normalization_mode string""",
        "ModelConfig": """
            pretrained_model_file string
            freeze_pretrained_layers bool
            allow_loaded_model_modification bool
            num_layers int
            use_pooling bool
            use_batch_norm bool
            dropout_rate float
            activation Activation
            objective_set ObjectiveSet
            training_precision TrainingPrecision
            freeze_bn bool
            freeze_blocks float*
            arch string
            load_graph bool
            all_projections bool""",
        "Activation": """
            activation_type string
            activation_parameters {float}""",
        "ObjectiveSet": """
            bbox BboxObjective
            cov CovObjective""",
        "BboxObjective": """
            input string
            scale float
            offset float""",
        "CovObjective": "input string",
        "TrainingPrecision": "backend_floatx FLOAT32|FLOAT16|INVALID",
        "EvaluationConfig": """
            validation_period_during_training uint
            first_validation_epoch uint
            early_stopping_patience_steps uint
            minimum_detection_ground_truth_overlap {float}
            evaluation_box_config {EvaluationBoxConfig}
            average_precision_mode SAMPLE|INTEGRATE""",
        "EvaluationBoxConfig": """
            minimum_height int
            maximum_height int
            minimum_width int
            maximum_width int""",
        "CostFunctionConfig": """
            target_classes TargetClass*
            enable_autoweighting bool
            max_objective_weight float
            min_objective_weight float""",
        "TargetClass": """
            name string
            class_weight float
            coverage_foreground_weight float
            objectives Objective*""",
        "Objective": """
            name string
            initial_weight float
            weight_target float""",
        "TrainingConfig": """
            batch_size_per_gpu uint
            num_epochs uint
            learning_rate LearningRateConfig
            regularizer RegularizerConfig
            optimizer OptimizerConfig
            cost_scaling CostScalingConfig
            checkpoint_interval uint
            enable_qat bool
            visualizer VisualizerConfig""",
        "LearningRateConfig": """
            soft_start_annealing_schedule SoftStart
            early_stopping_annealing_schedule EarlyStopping""",
        "SoftStart": """
            min_learning_rate float
            max_learning_rate float
            soft_start float
            annealing float""",
        "EarlyStopping": """
            min_learning_rate float
            max_learning_rate float
            soft_start_epochs uint
            annealing_epochs uint
            patience_steps uint""",
        "RegularizerConfig": """
            type NO_REG|L1|L2
            weight float""",
        "OptimizerConfig": "adam Adam",
        "Adam": """
            epsilon float
            beta1 float
            beta2 float""",
        "CostScalingConfig": """
            enabled bool
            initial_exponent float
            increment float
            decrement float""",
        "VisualizerConfig": """
            enabled bool
            num_images uint
            scalar_logging_frequency uint
            infrequent_logging_frequency uint
            target_class_config {VisualizerClass}
            wandb_config WandBConfig
            clearml_config ClearMLConfig""",
        "VisualizerClass": "coverage_threshold float",
        "WandBConfig": """
            enabled bool
            key string
            project string
            entity string
            reinit bool
            name string
            tags string*
            wandb_dir string
            notes string
            mode ONLINE|OFFLINE|DISABLED""",
        "ClearMLConfig": """
            project string
            task string
            tags string*
            reuse_last_task_id bool
            continue_last_task bool
            deferred_init bool""",
        "BboxRasterizerConfig": """
            target_class_config {RasterizerClass}
            deadzone_radius float""",
        "RasterizerClass": """
            cov_center_x float
            cov_center_y float
            cov_radius_x float
            cov_radius_y float
            bbox_min_radius float""",
        "ObjectiveLabelFilter": """
            objective_label_filter_configs Anything*
            mask_multiplier float
            preserve_ground_truth bool""",
    }.items()
}

#: message → the messages that must be in it.
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "Experiment": (
        *("model_config", "training_config", "evaluation_config", "cost_function_config", "augmentation_config"),
        *("bbox_rasterizer_config", "postprocessing_config", "dataset_config"),
    ),
    "AugmentationConfig": ("preprocessing",),
    "BboxRasterizerConfig": ("target_class_config",),
    "TrainingConfig": ("learning_rate", "regularizer", "optimizer", "cost_scaling"),
    "OptimizerConfig": ("adam",),
    "EvaluationConfig": ("minimum_detection_ground_truth_overlap", "evaluation_box_config"),
    "CostFunctionConfig": ("target_classes",),
    "TargetClass": ("objectives",),
    "PostProcessingConfig": ("target_class_config",),
    "DatasetConfig": ("data_sources", "target_class_mapping"),
    "ModelConfig": ("objective_set",),
    "ObjectiveSet": ("bbox", "cov"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRule:
    """A demand on a number or text, in words that follow `must`."""

    words: str
    holds: Callable[[float], bool] | None = None  # None: a text that is not empty
    one_of: tuple[str, ...] = ()
    yet: str = ""  # what takes it all the same: then it is a warning


_POSITIVE: Final = ValueRule(words="be above 0", holds=lambda value: value > 0)
_NOT_NEGATIVE: Final = ValueRule(words="be 0 or more", holds=lambda value: value >= 0)
_RATIO: Final = ValueRule(words="lie in 0 to 1", holds=lambda value: 0 <= value <= 1)
_BELOW_ONE: Final = ValueRule(words="be 0 or more and below 1", holds=lambda value: 0 <= value < 1)
_GIVEN: Final = ValueRule(words="be given")
# TAO 5.0 tests sizes against 16 whatever the template's stride.
_SIXTEEN: Final = ValueRule(words="be above 0 and divisible by 16", holds=lambda value: value > 0 and value % 16 == 0)
_ARCHITECTURES: Final = (
    *("resnet", "vgg", "darknet", "mobilenet_v1", "mobilenet_v2", "squeezenet", "googlenet", "efficientnet_b0"),
)

#: field → what its value must be, wherever the field stands.
VALUES: Final[Mapping[str, ValueRule]] = {
    **dict.fromkeys(
        (
            *("scale", "batch_size_per_gpu", "num_epochs", "min_learning_rate", "max_learning_rate"),
            *("validation_period_during_training", "first_validation_epoch", "maximum_height", "maximum_width"),
            *("initial_exponent", "increment", "decrement", "epsilon", "beta1", "beta2"),
        ),
        _POSITIVE,
    ),
    **dict.fromkeys(
        (
            *("num_layers", "offset", "minimum_height", "minimum_width", "weight", "minimum_bounding_box_height"),
            *("min_bbox_width", "min_bbox_height", "zoom_min", "zoom_max", "translate_max_x", "translate_max_y"),
            *("hue_rotation_max", "class_weight", "coverage_foreground_weight", "initial_weight", "weight_target"),
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        (
            *("cov_center_x", "cov_center_y", "cov_radius_x", "cov_radius_y", "bbox_min_radius", "deadzone_radius"),
            *("coverage_threshold", "confidence_threshold", "nms_iou_threshold", "nms_confidence_threshold"),
            *("dbscan_eps", "dbscan_min_samples", "neighborhood_size"),
            *("hflip_probability", "vflip_probability", "color_shift_stddev", "saturation_shift_max"),
            *("contrast_scale_max", "contrast_center"),
        ),
        _RATIO,
    ),
    "dbscan_confidence_threshold": ValueRule(
        words="lie in 0 to 1",
        holds=lambda value: 0 <= value <= 1,
        yet="serving takes it, for the confidence of DBSCAN is a sum",
    ),
    **dict.fromkeys(("soft_start", "annealing"), _BELOW_ONE),
    **dict.fromkeys(("tfrecords_path", "image_directory_path", "name"), _GIVEN),
    **dict.fromkeys(("output_image_width", "output_image_height"), _SIXTEEN),
    "arch": ValueRule(words=f"be one of {', '.join(_ARCHITECTURES)}", one_of=_ARCHITECTURES),
}
