"""Which weights of a folder are wanted, what they were made from, and what is said of them."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from results_folders import copied, other_content, pruned_from, with_checkpoints

from tao2serve.errors import InputError
from tao2serve.registry.adoption.course import Point, course_of, log_pieces, masked
from tao2serve.registry.adoption.lineage import is_pruned_of, local_pretrained, plain_stem
from tao2serve.registry.adoption.plan import choose_weights, evidence_of, task_name
from tao2serve.tao.results import read_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_checkpoints(copied("unpruned", tmp_path / "exp" / "unpruned"), (2, 8, 15))


def names(folder: Path, which: str) -> list[tuple[str, int | None]]:
    return [(one.target, one.epoch) for one in choose_weights(read_results(folder), which)]  # type: ignore[arg-type]


def test_best_is_the_best_by_map_and_the_final_weights(folder: Path) -> None:
    """The epoch with the highest mAP need not be the last; the final weights are what pruning goes on from."""
    text = (folder / "status.json").read_text()
    (folder / "status.json").write_text(
        text.replace('"mean average precision": 94.8069', '"mean average precision": 99.99')
    )
    with_checkpoints(folder, (4,))
    assert names(folder, "best") == [("model.epoch-4.hdf5", 4), ("resnet10_street.hdf5", 16)]
    assert names(folder, "last") == [("resnet10_street.hdf5", 16)]
    assert [epoch for _, epoch in names(folder, "all")] == [2, 4, 8, 15, 16]


def test_a_checkpoint_has_the_precision_of_its_own_epoch(folder: Path) -> None:
    """An epoch that was not evaluated has none."""
    chosen = {one.epoch: one.mean_average_precision for one in choose_weights(read_results(folder), "all")}
    assert chosen[2] == pytest.approx(0.171511)
    assert chosen[15] is None
    assert chosen[16] == pytest.approx(0.995659)


def test_the_same_content_is_wanted_once(folder: Path) -> None:
    """A checkpoint that is a copy of the final weights is one model; the same name in two folders is kept apart."""
    shutil.copyfile(folder / "weights" / "resnet10_street.hdf5", folder / "model.epoch-16.hdf5")
    other_content(folder / "model.epoch-8.hdf5", folder / "weights" / "model.epoch-8.hdf5", mark="again")
    targets = [target for target, _ in names(folder, "all")]
    assert len(targets) == len(set(targets)) == 5
    assert "resnet10_street.hdf5" not in targets


def test_without_final_weights_the_last_checkpoint_counts(folder: Path) -> None:
    """A folder of checkpoints alone has a last one; of one whose names tell steps, nothing can be told."""
    (folder / "weights" / "resnet10_street.hdf5").unlink()
    assert names(folder, "last") == [("model.epoch-15.hdf5", 15)]
    for path in folder.glob("model.epoch-*.hdf5"):
        path.rename(path.with_name(path.name.replace("epoch", "step")))
    with pytest.raises(InputError, match="whose epoch nothing tells"):
        names(folder, "best")


def test_exports_are_no_checkpoints_of_their_own(folder: Path) -> None:
    """Beside what training wrote an export of the final weights is not the final weights."""
    (folder / "weights" / "another.onnx").write_bytes(b"x" * 10)
    assert names(folder, "last") == [("resnet10_street.hdf5", 16)]


def test_the_task_is_named_as_tao_names_it() -> None:
    """Day, year, month, as its code has it; without a time the name alone."""
    assert task_name("train", datetime(2026, 11, 23, 8, 38, 40)) == "train_23/26/11_08:38:40"
    assert task_name("train", None) == "train"


def test_the_course_is_what_status_json_tells(folder: Path) -> None:
    """Precisions are ratios under TAO's own titles, by epoch, each point once, with its time."""
    results = read_results(folder)
    points = course_of(results, evidence_of(results))
    assert len({(point.curve, point.iteration) for point in points}) == len(points)
    wanted = Point(curve="car_AP (in %)", iteration=2, value=0.173885, time=datetime(2026, 11, 23, 8, 40, 19))
    assert wanted in points


def test_keys_are_masked_however_they_are_written() -> None:
    """A command line, an assignment of a notebook, and what merely looks like an option."""
    printed = "detectnet_v2 train -k tlt_encode -e s\n%env KEY=abc123\ntrain --key='my key' --key=xyz -kind of"
    shown = masked(printed)
    assert "tlt_encode" not in shown
    assert "abc123" not in shown
    assert "xyz" not in shown
    assert "my key" not in shown
    assert masked("Namespace(enc_key='nvidia', epochs=3)") == "Namespace(enc_key=***, epochs=3)"
    assert masked('key: "car"') == 'key: "car"'
    assert "-kind of" in shown
    assert "-e s" in shown


def test_a_log_is_cut_between_lines(folder: Path) -> None:
    """The pieces are the whole log, in order."""
    lines = [f"{number} Mean average_precision (in %): 1" for number in range(2000)]
    (folder / "train.log").write_text("\n".join(lines))
    pieces = log_pieces(read_results(folder))
    assert len(pieces) > 1
    assert "\n".join(pieces).split("\n") == lines


def test_pruning_is_seen_in_the_first_convolution(folder: Path) -> None:
    """A file with some of the filters can be pruned of the other; one that was trained on can not."""
    whole = folder / "weights" / "resnet10_street.hdf5"
    retrained = copied("pruned", folder.parent / "pruned") / "weights" / "resnet10_street_pruned.hdf5"
    made = pruned_from(whole, folder.parent / "made.hdf5", filters=5)
    assert is_pruned_of(made, whole) is True
    assert is_pruned_of(retrained, whole) is False
    assert is_pruned_of(folder / "status.json", whole) is None


def test_the_pretrained_file_is_looked_for_beside_the_results(folder: Path) -> None:
    """The spec names a path of the container; its last parts are found here, never a file of the run's own."""
    pruned = copied("pruned", folder.parent / "street" / "retrained")
    assert local_pretrained(read_results(pruned)) is None
    whole = folder / "weights" / "resnet10_street.hdf5"
    made = pruned_from(whole, folder.parent / "street" / "pruned" / "resnet10_street_pruned.hdf5", filters=5)
    assert local_pretrained(read_results(pruned)) == made.resolve()


@pytest.mark.parametrize(
    "name", ["a/resnet18_detector.hdf5", "resnet18_detector_pruned.tlt", "resnet18_detector_unpruned.hdf5"]
)
def test_names_are_compared_without_what_says_pruned(name: str) -> None:
    """What is written of pruning, and the ending, tell no two models apart."""
    assert plain_stem(name) == "resnet18_detector"
