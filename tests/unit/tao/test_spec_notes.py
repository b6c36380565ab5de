"""Remarks on a spec: differences that are no contradiction, and names that look misspelt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tao2serve.errors import InputError
from tao2serve.tao.clustering_file import read_clustering, with_clustering
from tao2serve.tao.describe import ModelDescription
from tao2serve.tao.notes import notes_on
from tao2serve.tao.spec import read_spec
from tao2serve.tao.spec_values import ExperimentSpec
from tao2serve.tao.unread_fields import unread_fields

SAMPLE = Path(__file__).parents[3] / "tao2serve" / "sandbox" / "sample"
TRAINING = """
dataset_config { target_class_mapping { key: "person" value: "person" } }
augmentation_config { preprocessing {
  output_image_width: 960 output_image_height: 544 output_image_channel: 3 } }
model_config { arch: "resnet" num_layers: 18 }
cost_function_config { target_classes { name: "person" } }
training_config { enable_qat: false }
"""
RESNET18 = ModelDescription(
    template="resnet",
    num_layers=18,
    pruned=False,
    quantization_aware=False,
    batch_norm=True,
    use_pooling=False,
    all_projections=True,
    parameter_count=11_000_000,
    unusual=(),
)

# TAO's own fields that the schema leaves out, by message (its .proto files)
UNLISTED = {
    "": "random_seed loss_mask_label_filter dataset_export_config",
    "dataset_config": "data_sources image_extension validation_fold validation_data_source dataloader_mode "
    "sampling_mode",
    "augmentation_config": "spatial_augmentation color_augmentation",
    "model_config": "freeze_pretrained_layers allow_loaded_model_modification activation training_precision",
    "cost_function_config": "enable_autoweighting max_objective_weight min_objective_weight",
    "training_config": "learning_rate regularizer optimizer cost_scaling checkpoint_interval",
    "inferencer_config": "input_nodes output_nodes gpu_index",
    "bbox_handler_config": "postproc_classes wandb_config",
    "evaluation_config": "validation_period_during_training first_validation_epoch early_stopping_patience_steps",
}


def _spec(folder: Path, text: str = TRAINING) -> ExperimentSpec:
    path = folder / "spec.txt"
    path.write_text(text)
    return read_spec(path)


def test_a_model_of_its_own_spec_needs_no_remark(tmp_path: Path) -> None:
    """Nothing is said where everything agrees, and about an inference spec."""
    assert notes_on(_spec(tmp_path), description=RESNET18) == ()
    assert notes_on(_spec(tmp_path)) == ()
    inference = 'inferencer_config { target_classes: "a" image_width: 32 image_height: 32 image_channels: 3 }'
    assert notes_on(_spec(tmp_path, inference), description=replace(RESNET18, quantization_aware=True)) == ()


@pytest.mark.parametrize(
    ("old", "new", "found", "note"),
    [
        ('arch: "resnet"', 'arch: "vgg"', RESNET18, "the spec says arch vgg, the graph looks like resnet"),
        ("num_layers: 18", "num_layers: 34", RESNET18, "the spec says 34 layers, the graph looks like resnet18"),
        ("num_layers: 18", "", replace(RESNET18, num_layers=10), "the spec says 18 layers"),
        ("enable_qat: false", "enable_qat: true", RESNET18, "the model has no quantization layers"),
        ("", "", replace(RESNET18, quantization_aware=True), "but enable_qat is not true"),
    ],
)
def test_differences_are_said_in_words(tmp_path: Path, old: str, new: str, found: ModelDescription, note: str) -> None:
    """Template, depth and quantization that differ give one sentence with both sides."""
    notes = notes_on(_spec(tmp_path, TRAINING.replace(old, new, 1)), description=found)
    assert len(notes) == 1
    assert note in notes[0]


def test_differences_that_are_none(tmp_path: Path) -> None:
    """A loaded graph may be any; depth 0 is 18; an unrecognised depth is not held against the spec."""
    loaded = _spec(tmp_path, TRAINING.replace('arch: "resnet"', 'arch: "vgg" load_graph: true'))
    assert notes_on(loaded, description=RESNET18) == ()
    assert notes_on(_spec(tmp_path, TRAINING.replace("num_layers: 18", "")), description=RESNET18) == ()
    assert notes_on(_spec(tmp_path), description=replace(RESNET18, num_layers=None)) == ()


def test_mobilenet_is_never_quantized(tmp_path: Path) -> None:
    """TAO ignores enable_qat for mobilenet, and the sentence says so."""
    text = TRAINING.replace('"resnet"', '"mobilenet_v2"').replace("enable_qat: false", "enable_qat: true")
    (note,) = notes_on(_spec(tmp_path, text), description=replace(RESNET18, template="mobilenet_v2", num_layers=None))
    assert "TAO trains mobilenet_v2 without quantization" in note


def test_mapping_that_maps_nothing(tmp_path: Path) -> None:
    """Keys with capital letters and values that are no target class are said."""
    text = TRAINING.replace('key: "person"', 'key: "Person"').replace('value: "person"', 'value: "human"')
    capital, strange = notes_on(_spec(tmp_path, text))
    assert "capital letters (Person)" in capital
    assert strange == "target_class_mapping maps to what is no target class: human"


def test_the_clustering_files_own_remarks_are_passed_on(tmp_path: Path) -> None:
    """What a clustering file could not say as it stands is among the notes of the spec it was laid over."""
    path = tmp_path / "clustering.prototxt"
    path.write_text(
        'classwise_clustering_config { key: "default" value { dbscan_config { dbscan_min_samples: 1.5 } } }'
    )
    (note,) = notes_on(with_clustering(_spec(tmp_path), read_clustering(path)))
    assert "dbscan_min_samples 1.5 of class default reads as 1" in note


def test_a_misspelt_field_is_found_where_it_stands(tmp_path: Path) -> None:
    """A name close to a field of its own message is reported with its line and the field."""
    path = tmp_path / "spec.txt"
    path.write_text(
        "# dbscan_esp: in a comment\n"
        'model_config { arch: "dbscan_esp: { in a string" num_layer: 18 }\n'
        "postprocessing_config { target_class_config { key: 'a' value: <\n"
        "  clustering_config { clustering_algorithm: DBSCAN dbscan_esp: 0.15 } > } }\n"
        "cost_function_configs { }\n"
    )
    assert unread_fields(path) == (
        "line 2: num_layer is not read; num_layers would be",
        "line 4: dbscan_esp is not read; dbscan_eps would be",
        "line 5: cost_function_configs is not read; cost_function_config would be",
    )


def test_misspelt_fields_of_a_clustering_file(tmp_path: Path) -> None:
    """A clustering file is held against its own message."""
    path = tmp_path / "clustering.prototxt"
    path.write_text(
        "stride: 16\nclasswise_clustering_config { key: 'a' value { converage_threshold: 0.1\n"
        " dbscan_config { dbscan_eps: 0.1 dbscan_min_sample: 1 } } }"
    )
    assert unread_fields(path) == (
        "line 2: converage_threshold is not read; coverage_threshold would be",
        "line 3: dbscan_min_sample is not read; dbscan_min_samples would be",
    )


def test_taos_own_fields_are_not_suspected(tmp_path: Path, golden: Path) -> None:
    """No file of NVIDIA's, none of the sample's, and no field TAO has gives a warning."""
    files = [*(golden / "specs").glob("*/*.txt"), *SAMPLE.glob("*/experiment_spec.txt")]
    assert len(files) > 20
    for path in files:
        assert unread_fields(path) == (), path
    path = tmp_path / "spec.txt"
    for message, names in UNLISTED.items():
        fields = " ".join(f"{name}: 1" for name in names.split())
        path.write_text(f"{message} {{ {fields} }}" if message else fields)
        assert unread_fields(path) == (), message


def test_unknown_messages_and_lists_are_passed_over(tmp_path: Path) -> None:
    """Names inside a message the schema does not have are no business of ours; lists and odd brackets do no harm."""
    path = tmp_path / "spec.txt"
    path.write_text(
        "training_config { optimizer { adam { batch_size_per_gpus: 1 } } }\n"
        'inferencer_config { target_classes: ["a", "b"] input_nodes: [strid, batch_siz] }\n'
        "} } > ] : { strange\n"
    )
    assert unread_fields(path) == ()


def test_at_most_twenty_are_named_and_bad_files_are_refused(tmp_path: Path) -> None:
    """A file full of misspellings gives 20 sentences; a missing one is an InputError."""
    path = tmp_path / "spec.txt"
    path.write_text("\n".join("training_confi { }" for _ in range(50)))
    assert len(unread_fields(path)) == 20
    with pytest.raises(InputError, match="cannot be read"):
        unread_fields(tmp_path / "none.txt")
