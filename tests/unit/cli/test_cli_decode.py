"""`tao2serve decode`: its words, its document, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_vs_tensorflow import spec_text

from tao2serve.cli.main import run

CLUSTERING_FILE = """
dbscan_criterion: IOU
stride: 16
classwise_clustering_config {
  key: "default"
  value {
    coverage_threshold: 0.9
    minimum_bounding_box_height: 4
    dbscan_config { dbscan_eps: 0.3 dbscan_min_samples: 1 }
  }
}
"""


@pytest.fixture
def raw(golden: Path) -> Path:
    return golden / "postprocess" / "medium.npz"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec of three classes at 960x544; class 0 is called car there and in the golden grids."""
    path = tmp_path / "spec.txt"
    path.write_text(spec_text())
    return path


def document(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, dict[str, Any]]:
    code = run(["decode", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_golden_grids_give_nvidias_boxes(
    golden: Path, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --params and the sizes in the file, the document holds the rows that tao_deploy gives."""
    reference = json.loads((golden / "postprocess" / "tao_deploy.json").read_text())
    classes = [
        {"name": name, "clustering": "dbscan", **{k: v for k, v in entry.items() if k != "clustering_algorithm"}}
        for name, entry in reference["configs"]["dbscan_infer"].items()
    ]
    params = tmp_path / "params.json"
    size = {"channels": 3, "height": 544, "width": 960}
    params.write_text(
        json.dumps(
            {"family": "detectnet_v2", "input": size, "bbox_scale": 35.0, "bbox_offset": 0.5, "classes": classes}
        )
    )
    code, found = document(capsys, raw, "--params", params)
    assert (code, found["outcome"], found["image_size_from"]) == (0, "ok", "file")
    rows = reference["cases"]["medium/dbscan_infer"]["rows_classid_conf_ltrb_original_image"]
    assert len(found["images"]) == len(rows)
    for image, wanted, wh in zip(found["images"], rows, reference["orig_sizes_wh"], strict=True):
        assert image["image"] == {"width": wh[0], "height": wh[1]}
        assert image["bbox_format"] == "xyxy"
        ours = np.array([[p["class_id"] + 1, p["raw_score"], *p["bbox"]] for p in image["predictions"]])
        theirs = np.array(wanted)
        assert ours.shape == theirs.shape
        ours, theirs = (array[np.lexsort(array.T[::-1])] for array in (ours, theirs))
        np.testing.assert_allclose(ours[:, :2], theirs[:, :2], atol=1e-3)
        np.testing.assert_allclose(ours[:, 2:], theirs[:, 2:], atol=0.05)


def test_a_spec_decodes_and_a_size_scales(raw: Path, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--image-size wins over the file's own sizes; labels are the spec's."""
    code, found = document(capsys, raw, "--spec", spec, "--image-size", "480x272")
    assert (code, found["image_size_from"]) == (0, "option")
    boxes = [p["bbox"] for image in found["images"] for p in image["predictions"]]
    assert len(boxes) > 100
    assert np.max(boxes) <= 480
    assert {p["label"] for image in found["images"] for p in image["predictions"]} == {"car", "person", "bicycle"}


def test_a_clustering_file_lies_over_the_spec(
    raw: Path, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its threshold counts."""
    over = tmp_path / "clustering.txt"
    over.write_text(CLUSTERING_FILE)
    _, usual = document(capsys, raw, "--spec", spec)
    code, strict = document(capsys, raw, "--spec", spec, "--clustering", over)
    assert code == 0
    assert sum(len(image["predictions"]) for image in strict["images"]) < 0.5 * sum(
        len(image["predictions"]) for image in usual["images"]
    )


def test_people_get_a_table_an_image(raw: Path, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A heading and one line a detection; without any size it says which pixels are meant."""
    assert run(["decode", str(raw), "--spec", str(spec)]) == 0
    shown = capsys.readouterr().out.splitlines()
    heads = [line for line in shown if line.startswith("image ")]
    assert heads[0].startswith("image 0, 1920x1080: ")
    assert len(shown) == sum(int(head.split()[3]) for head in heads) + 2 * len(heads)
    assert "raw score" in shown[1]
    with np.load(raw) as file:
        np.savez(tmp_path / "bare.npz", output_cov=0 * file["output_cov"][0], output_bbox=file["output_bbox"][0])
    assert run(["decode", str(tmp_path / "bare.npz"), "--spec", str(spec)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "image 0, 960x544: 0 detections",
        "no image size is known: boxes are in pixels of the network's input (--image-size WxH)",
    ]


def test_values_that_are_not_finite_are_counted(
    raw: Path, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each image and each grid, in both forms; the exit code stays 0, and whole images have no note."""
    with np.load(raw) as file:
        cov, bbox = file["output_cov"][:3].copy(), file["output_bbox"][:3].copy()
    cov[0], bbox[0] = np.nan, np.inf
    bbox[1, 0, 0, :2] = -np.inf
    path = tmp_path / "odd.npz"
    np.savez(path, output_cov=cov, output_bbox=bbox)
    code, found = document(capsys, path, "--spec", spec)
    assert code == 0
    assert found["images"][0]["predictions"] == []
    assert [image["not_finite"] for image in found["images"]] == [
        {"coverage": cov[0].size, "bbox": bbox[0].size}, {"coverage": 0, "bbox": 2}, {"coverage": 0, "bbox": 0},
    ]  # fmt: skip
    assert run(["decode", str(path), "--spec", str(spec)]) == 0
    shown = capsys.readouterr().out.splitlines()
    notes = {shown[index - 1].split(",")[0]: line for index, line in enumerate(shown) if "not finite" in line}
    assert list(notes) == ["image 0", "image 1"]
    assert f"{cov[0].size:,} of coverage and {bbox[0].size:,} of bbox" in notes["image 0"]
    assert notes["image 1"].endswith("0 of coverage and 2 of bbox")


def test_spec_and_params_are_one_or_the_other(raw: Path, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither and both are different mistakes, and are told apart."""
    _, neither = document(capsys, raw)
    _, both = document(capsys, raw, "--spec", spec, "--params", spec)
    assert neither["error"]["fact"] == "needs one of --spec and --params"
    assert both["error"]["fact"] == "takes only one of --spec and --params"


def test_the_help_names_the_arrays_that_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes that a graph decoded, and TensorFlow's names."""
    assert run(["decode", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("output_boxes", "output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["RAW"], 2),
        (["RAW", "--spec", "SPEC", "--params", "SPEC"], 2),
        (["RAW", "--params", "SPEC", "--clustering", "SPEC"], 2),
        (["RAW", "--spec", "SPEC", "--image-size", "wide"], 2),
        (["RAW", "--spec", "SPEC", "--image-size", "0x100"], 2),
        (["RAW", "--params", "SPEC"], 3),
        (["RAW", "--spec", "RAW"], 3),
        (["SPEC", "--spec", "SPEC"], 3),
        (["nowhere.npz", "--spec", "SPEC"], 3),
    ],
)
def test_wrong_usage_and_wrong_files_have_their_codes(
    raw: Path, spec: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    """2 for the command line, 3 for what a file holds, one document either way."""
    given = [{"RAW": str(raw), "SPEC": str(spec)}.get(word, word) for word in arguments]
    assert document(capsys, *given)[0] == code
