"""The clustering file of tao-toolkit-triton-apps, read and laid over an experiment spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.errors import InputError
from tao2serve.tao.clustering_file import read_clustering, with_clustering
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec

CLUSTERING = """
linewidth: 4
stride: 16
classwise_clustering_config{
    key: "person"
    value: {
        coverage_threshold: 0.005
        minimum_bounding_box_height: 4
        dbscan_config{ dbscan_eps: 0.3 dbscan_min_samples: 0.05 dbscan_confidence_threshold: 0.9 }
        bbox_color{ R: 0 G: 255 B: 7 }
    }
}
classwise_clustering_config{ key: "bag" value { coverage_threshold: 0.1
    dbscan_config{ dbscan_eps: 0.15 dbscan_min_samples: 3 } } }
"""
SPEC = """
inferencer_config { target_classes: "bag" target_classes: "person"
  image_width: 960 image_height: 544 image_channels: 3 stride: 16 }
bbox_handler_config { classwise_bbox_handler_config { key: "bag" value { output_map: "luggage"
  clustering_config { clustering_algorithm: NMS coverage_threshold: 0.2 } } } }
"""


@pytest.fixture
def clustering(tmp_path: Path) -> Path:
    path = tmp_path / "clustering.prototxt"
    path.write_text(CLUSTERING)
    return path


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.txt"
    path.write_text(SPEC)
    return path


def test_it_reads_into_the_values_of_a_spec(clustering: Path) -> None:
    """Nested DBSCAN settings, color and stride arrive; the fraction of min_samples becomes TAO's whole number, said."""
    found = read_clustering(clustering)
    assert found.stride == 16
    person = found.handling["person"]
    assert person.bbox_color == (0, 255, 7)
    assert person.clustering.algorithm == "DBSCAN"
    assert (person.clustering.coverage_threshold, person.clustering.minimum_bounding_box_height) == (0.005, 4)
    assert (person.clustering.dbscan_eps, person.clustering.dbscan_confidence_threshold) == (0.3, 0.9)
    assert person.clustering.dbscan_min_samples == 1
    assert found.handling["bag"].clustering.dbscan_min_samples == 3
    assert len(found.notes) == 1
    assert "dbscan_min_samples 0.05 of class person reads as 1" in found.notes[0]


def test_it_replaces_a_specs_clustering_and_nothing_else(clustering: Path, spec: Path) -> None:
    """Classes, their order, sizes and output names stay those of the spec; decoding takes the file's numbers."""
    plain = read_spec(spec)
    laid = with_clustering(plain, read_clustering(clustering))
    assert laid.classes == ("bag", "person")
    assert (laid.input, laid.inference) == (plain.input, plain.inference)
    assert laid.handling["bag"].output_map == "luggage"
    bag, person = to_params(laid)["classes"]
    assert (bag["clustering"], bag["coverage_threshold"], bag["dbscan_eps"]) == ("dbscan", 0.1, 0.15)
    assert (person["clustering"], person["dbscan_confidence_threshold"]) == ("dbscan", 0.9)


def test_default_serves_the_classes_without_a_key(tmp_path: Path, clustering: Path, spec: Path) -> None:
    """The file's default comes before the spec's own settings, which serve what the file does not have."""
    clustering.write_text(CLUSTERING.replace('"bag"', '"default"').replace('"person"', '"car"'))
    laid = with_clustering(read_spec(spec), read_clustering(clustering))
    assert laid.handling["bag"].clustering.coverage_threshold == 0.1
    assert laid.handling["person"].clustering.coverage_threshold == 0.1
    clustering.write_text(CLUSTERING.replace('"bag"', '"car"'))
    laid = with_clustering(read_spec(spec), read_clustering(clustering))
    assert laid.handling["bag"].clustering.algorithm == "NMS"


def test_a_class_that_neither_has(clustering: Path, spec: Path) -> None:
    """A class without settings in both files is named, with what the clustering file has."""
    clustering.write_text(CLUSTERING.replace('"person"', '"car"'))
    with pytest.raises(InputError, match="no clustering for class person, and neither has") as caught:
        with_clustering(read_spec(spec), read_clustering(clustering))
    assert caught.value.evidence == "the file has: car, bag"


def test_the_wrong_kind_of_file_is_refused_either_way(clustering: Path, spec: Path) -> None:
    """A clustering file is no spec and a spec no clustering file; each error says where the file belongs."""
    with pytest.raises(InputError, match="clustering file of tao-toolkit-triton-apps") as caught:
        read_spec(clustering)
    assert "--clustering" in caught.value.hint
    with pytest.raises(InputError, match="is not a clustering file") as caught:
        read_clustering(spec)
    assert "--spec" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("stride: 16", "stride: -16", "no size"),
        ("dbscan_eps: 0.3", "dbscan_eps: nan", "class person that is no usable number"),
        ("dbscan_min_samples: 0.05", "dbscan_min_samples: 1e39", "class person that is no usable number"),
        ("coverage_threshold: 0.1", "coverage_threshold: -0.1", "class bag that is no usable number"),
        ("stride: 16", "stride: 16.5", "not protobuf text format"),
    ],
)
def test_unusable_numbers(clustering: Path, old: str, new: str, fact: str) -> None:
    """Numbers no clustering can use are InputErrors that name the class."""
    clustering.write_text(CLUSTERING.replace(old, new))
    with pytest.raises(InputError, match=fact):
        read_clustering(clustering)
