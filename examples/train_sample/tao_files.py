"""The text files a TAO run leaves beside its weights: experiment spec, status log, scalars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from recipe import ClassRecipe, Clustering, Recipe

__all__ = ["experiment_spec", "scalars", "status_log"]

_ROOT = "/workspace/tao-experiments"  # where TAO's container mounts an experiment


def _block(name: str, *lines: str) -> list[str]:
    return [f"{name} {{", *(f"  {line}" for line in lines), "}"]


def _entry(key: str, *lines: str) -> list[str]:
    return _block("target_class_config", f'key: "{key}"', *_block("value", *lines))


def _postprocessing(clusterings: dict[str, Clustering]) -> list[str]:
    lines: list[str] = []
    for name, c in clusterings.items():
        lines += _entry(
            name,
            *_block(
                "clustering_config",
                "clustering_algorithm: DBSCAN",
                f"dbscan_confidence_threshold: {c.dbscan_confidence_threshold}",
                f"coverage_threshold: {c.coverage_threshold}",
                f"dbscan_eps: {c.dbscan_eps}",
                f"dbscan_min_samples: {c.dbscan_min_samples}",
                f"minimum_bounding_box_height: {c.minimum_bounding_box_height}",
            ),
        )
    return _block("postprocessing_config", *lines)


def _dataset(classes: Sequence[ClassRecipe]) -> list[str]:
    lines = _block(
        "data_sources",
        f'tfrecords_path: "{_ROOT}/data/tfrecords/street_train/*"',
        f'image_directory_path: "{_ROOT}/data/street"',
    )
    lines.append('image_extension: "jpg"')
    for c in classes:
        lines += _block("target_class_mapping", f'key: "{c.name}"', f'value: "{c.name}"')
    return _block("dataset_config", *lines, "validation_fold: 0")


def _augmentation(recipe: Recipe) -> list[str]:
    shift = float(recipe.translate_max)
    return _block(
        "augmentation_config",
        *_block("preprocessing", f"output_image_width: {recipe.width}", f"output_image_height: {recipe.height}",
                "min_bbox_width: 1.0", "min_bbox_height: 1.0", f"output_image_channel: {recipe.input_chw[0]}"),
        *_block("spatial_augmentation", f"hflip_probability: {recipe.hflip_probability}", "zoom_min: 1.0",
                "zoom_max: 1.0",
                f"translate_max_x: {shift}", f"translate_max_y: {shift}"),
        *_block("color_augmentation", f"hue_rotation_max: {recipe.hue_rotation_max}",
                f"saturation_shift_max: {recipe.saturation_shift_max}",
                f"contrast_scale_max: {recipe.contrast_scale_max}", "contrast_center: 0.5"),
    )  # fmt: skip


def _model(recipe: Recipe, start_from: str) -> list[str]:
    lines = [f'pretrained_model_file: "{_ROOT}/{start_from}"'] if start_from else []
    lines += [f"num_layers: {recipe.num_layers}", "use_batch_norm: true"]
    if recipe.load_graph:
        lines.append("load_graph: true")
    lines += _block(
        "objective_set", *_block("bbox", f"scale: {recipe.bbox_scale}", f"offset: {recipe.bbox_offset}"), *_block("cov")
    )
    return _block("model_config", *lines, 'arch: "resnet"')


def _evaluation(recipe: Recipe, classes: Sequence[ClassRecipe]) -> list[str]:
    lines = [
        f"validation_period_during_training: {recipe.validation_period}",
        f"first_validation_epoch: {recipe.validation_period}",
    ]
    for c in classes:
        lines += _block("minimum_detection_ground_truth_overlap", f'key: "{c.name}"', "value: 0.5")
    for c in classes:
        limits = ("minimum_height: 4", "maximum_height: 9999", "minimum_width: 4", "maximum_width: 9999")
        lines += _block("evaluation_box_config", f'key: "{c.name}"', *_block("value", *limits))
    return _block("evaluation_config", *lines, "average_precision_mode: INTEGRATE")


def _cost_function(classes: Sequence[ClassRecipe]) -> list[str]:
    lines: list[str] = []
    for c in classes:
        lines += _block(
            "target_classes",
            f'name: "{c.name}"',
            f"class_weight: {c.class_weight}",
            f"coverage_foreground_weight: {c.coverage_foreground_weight}",
            *_block("objectives", 'name: "cov"', f"initial_weight: {c.cov_weight}", f"weight_target: {c.cov_weight}"),
            *_block(
                "objectives", 'name: "bbox"', f"initial_weight: {c.bbox_weight}", f"weight_target: {c.bbox_weight}"
            ),
        )
    return _block("cost_function_config", *lines, "enable_autoweighting: false", "max_objective_weight: 0.9999",
                  "min_objective_weight: 0.0001")  # fmt: skip


def _training(recipe: Recipe, clusterings: dict[str, Clustering]) -> list[str]:
    rate = _block(
        "learning_rate",
        *_block(
            "soft_start_annealing_schedule",
            f"min_learning_rate: {recipe.min_learning_rate}",
            f"max_learning_rate: {recipe.max_learning_rate}",
            f"soft_start: {recipe.soft_start}",
            f"annealing: {recipe.annealing}",
        ),
    )
    shown: list[str] = []
    for name, clustering in clusterings.items():
        shown += _entry(name, f"coverage_threshold: {clustering.coverage_threshold}")
    clearml = _block(
        "clearml_config",
        'project: "street-detector"',
        f'task: "{recipe.task}"',
        *(f'tags: "{tag}"' for tag in recipe.tags),
    )
    return _block(
        "training_config",
        f"batch_size_per_gpu: {recipe.batch_size}",
        f"num_epochs: {recipe.num_epochs}",
        *rate,
        *_block("regularizer", "type: L1", f"weight: {recipe.regularizer_weight}"),
        *_block("optimizer", *_block("adam", "epsilon: 1e-08", "beta1: 0.9", "beta2: 0.999")),
        *_block("cost_scaling", "enabled: false", "initial_exponent: 20.0", "increment: 0.005", "decrement: 1.0"),
        *_block("visualizer", "enabled: true", "num_images: 3", *shown, *clearml),
        f"checkpoint_interval: {recipe.validation_period}",
    )


def _rasterizer(classes: Sequence[ClassRecipe]) -> list[str]:
    lines: list[str] = []
    for c in classes:
        lines += _entry(
            c.name,
            "cov_center_x: 0.5",
            "cov_center_y: 0.5",
            f"cov_radius_x: {c.cov_radius}",
            f"cov_radius_y: {c.cov_radius}",
            f"bbox_min_radius: {c.bbox_min_radius}",
        )
    return _block("bbox_rasterizer_config", *lines)


def experiment_spec(
    recipe: Recipe, classes: Sequence[ClassRecipe], clusterings: dict[str, Clustering], *, start_from: str = ""
) -> str:
    """Return the spec in protobuf text format; `start_from` is the pretrained file, relative to the experiment."""
    lines = [
        f"random_seed: {recipe.seed}",
        *_dataset(classes),
        *_augmentation(recipe),
        *_postprocessing(clusterings),
        *_model(recipe, start_from),
        *_evaluation(recipe, classes),
        *_cost_function(classes),
        *_training(recipe, clusterings),
        *_rasterizer(classes),
    ]
    return "\n".join(lines) + "\n"


def _line(stamp: float, status: str, message: str, **parts: Any) -> str:
    moment = datetime.fromtimestamp(stamp, UTC)
    head = {
        "date": f"{moment.month}/{moment.day}/{moment.year}",
        "time": f"{moment.hour}:{moment.minute}:{moment.second}",
        "status": status,
        "verbosity": "INFO",
        "message": message,
    }
    return json.dumps(head | parts)


def status_log(
    history: dict[str, Any], precisions: dict[int, dict[str, float]], *, size_mb: float, parameters: int
) -> str:
    """Return the lines of status.json: start, one per validated epoch, success.

    `precisions[epoch][class]` is an average precision as a ratio; the log has percent, as TAO writes it, and
    parameters in millions.
    """
    lines = [_line(history["started"], "STARTED", "Starting DetectNet_v2 Training job")]
    for row in history["epochs"]:
        if row["epoch"] not in precisions:
            continue
        ap = {name: round(100 * value, 4) for name, value in precisions[row["epoch"]].items()}
        lines.append(
            _line(
                row["time"],
                "RUNNING",
                f"Evaluation metrics generated at epoch {row['epoch']}/{len(history['epochs'])}.",
                epoch=row["epoch"],
                max_epoch=len(history["epochs"]),
                kpi={
                    "mean average precision": round(sum(ap.values()) / len(ap), 4),
                    "validation cost": round(row["validation_cost"], 6),
                    "size": round(size_mb, 4),
                    "param_count": parameters / 1e6,
                },
                categorical={"average_precision": ap},
                graphical={"loss": round(row["loss"], 6), "learning_rate": row["learning_rate"]},
            )
        )
    lines.append(_line(history["epochs"][-1]["time"], "SUCCESS", "DetectNet_v2 training finished successfully."))
    return "\n".join(lines) + "\n"


def scalars(history: dict[str, Any], *, points: int = 200) -> str:
    """Return `{title: [[iteration, value], …]}`, evenly thinned to at most `points` values each, the last kept."""
    curves: dict[str, list[list[float]]] = {}
    for title, values in history["scalars"].items():
        step = -(-len(values) // (points - 1))
        kept = values[::step]
        if kept[-1] != values[-1]:
            kept.append(values[-1])
        curves[title] = [[int(at), float(f"{value:.6g}")] for at, value in kept]
    return json.dumps(curves, separators=(",", ":")) + "\n"
