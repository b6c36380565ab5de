"""Raw grids in a file become detections, and files that hold none are refused before they cost anything."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tao2serve.decoding import decode_grids, params_from_file, read_grids
from tao2serve.errors import InputError
from tao2serve.runtime import ClassParams, DetectorParams, postprocess
from tao2serve.runtime.candidates import absolute_boxes

PARAMS = DetectorParams(
    channels=3, height=64, width=96, bbox_scale=35.0, bbox_offset=0.5, classes=(ClassParams(name="car"),)
)


def grids(images: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """One object of 30x40 pixels an image, seen by four cells."""
    cov = np.zeros((images, 1, 4, 6), dtype=np.float32)
    bbox = np.zeros((images, 4, 4, 6), dtype=np.float32)
    for x in (1, 2):
        for y in (1, 2):
            cov[:, 0, y, x] = 0.5
            centre = np.array([x, y]) * 16 + 0.5
            bbox[:, :, y, x] = np.concatenate((centre - 10, (40, 50) - centre)) / 35.0
    return cov, bbox


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("cov_name", "bbox_name"),
    [
        ("output_cov", "output_bbox"),
        ("output_cov/Sigmoid", "output_bbox/BiasAdd"),
        ("output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"),
    ],
)
def test_tensors_are_found_under_all_their_names(tmp_path: Path, cov_name: str, bbox_name: str) -> None:
    """Both of TAO's naming schemes, one image or several, give what `postprocess` gives."""
    cov, bbox = grids()
    file = save(tmp_path / "raw.npz", **{cov_name: cov, bbox_name: bbox, "other": np.arange(3)})
    images = decode_grids(read_grids(file), PARAMS)
    assert [image.size for image in images] == [(96, 64)] * 2
    wanted = postprocess(cov[0], bbox[0], PARAMS, image_size=(96, 64))
    assert len(wanted) == 1
    for image in images:
        np.testing.assert_array_equal(image.detections.xyxy, wanted.xyxy)
    single = save(tmp_path / "single.npz", **{cov_name: cov[0].astype(np.float64), bbox_name: bbox[0]})
    (image,) = decode_grids(read_grids(single), PARAMS)
    np.testing.assert_array_equal(image.detections.xyxy, wanted.xyxy)


def test_boxes_that_a_graph_decoded_are_taken_as_they_are(tmp_path: Path) -> None:
    """`output_boxes` holds pixels of the network, and gives the same detections as the offsets."""
    cov, bbox = grids(1)
    offsets = save(tmp_path / "offsets.npz", output_cov=cov, output_bbox=bbox)
    boxes = save(tmp_path / "boxes.npz", output_cov=cov, output_boxes=absolute_boxes(bbox[0], PARAMS)[None])
    (ours,), (theirs,) = (decode_grids(read_grids(file), PARAMS) for file in (offsets, boxes))
    np.testing.assert_array_equal(ours.detections.xyxy, theirs.detections.xyxy)


def test_image_sizes_are_those_given_then_those_of_the_file(tmp_path: Path) -> None:
    """--image-size wins over orig_sizes_wh, which wins over the network's size."""
    cov, bbox = grids()
    found = read_grids(
        save(tmp_path / "raw.npz", output_cov=cov, output_bbox=bbox, orig_sizes_wh=np.array([[192, 64], [96, 128]]))
    )
    wide, tall = decode_grids(found, PARAMS)
    np.testing.assert_allclose(wide.detections.xyxy, [[20, 10, 80, 50]], atol=1e-3)
    np.testing.assert_allclose(tall.detections.xyxy, [[10, 20, 40, 100]], atol=1e-3)
    assert [image.size for image in decode_grids(found, PARAMS, image_size=(10, 20))] == [(10, 20)] * 2


def _arrays(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        cov, bbox = grids()
        arrays = {"output_cov": cov, "output_bbox": bbox}
        change(arrays)
        np.savez(path, **arrays)

    return write


def _member(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("output_cov.npy", content)
            archive.writestr("output_bbox.npy", content)

    return write


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("write", "fact"),
    [
        (lambda path: path.write_bytes(b""), "not a .npz file"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n" * 100), "not a .npz file"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: os.mkfifo(path), "not a file"),
        (lambda _path: None, "cannot be read"),
        (_arrays(lambda a: a.pop("output_cov")), "no array named like output_cov"),
        (_arrays(lambda a: a.pop("output_bbox")), "no array named like output_bbox"),
        (_arrays(lambda a: a.update({"output_boxes": a["output_bbox"]})), "more than one array"),
        (_arrays(lambda a: a.update(output_cov=a["output_cov"][0, 0])), "a grid that is none"),
        (_arrays(lambda a: a.update(output_cov=a["output_cov"].astype(np.int32))), "a grid that is none"),
        (_arrays(lambda a: a.update(output_cov=a["output_cov"][:0])), "a grid that is none"),
        (_arrays(lambda a: a.update(output_bbox=a["output_bbox"][:, :3])), "do not belong together"),
        (_arrays(lambda a: a.update(output_bbox=a["output_bbox"][:1])), "do not belong together"),
        (_arrays(lambda a: a.update(orig_sizes_wh=np.array([[96, 64]]))), "no image sizes"),
        (_arrays(lambda a: a.update(orig_sizes_wh=np.array([[96, 64], [0, 64]]))), "no image sizes"),
        (_arrays(lambda a: a.update(orig_sizes_wh=np.array([[96.0, 64.0]] * 2))), "no image sizes"),
        (_member(_saved(np.array([{"a": 1}], dtype=object))), "holds no numbers"),
        (_member(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1000000, 1000000)}")), "too much"),
        (_member(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 400, 600)}", b"1234")), "ends within"),
        (_member(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1, 4, 6)}", b"1234")), "damaged"),
        (_member(_npy("{'descr': '<f4', 'shape': ")), "damaged"),
        (_member(b"\x93NUMPY\x03\x00" + b"\0" * 100), "a format of names"),
        (_member(b"1234"), "damaged"),
        (_member(_saved(np.array(["text"]))), "holds no numbers"),
    ],
)
def test_what_holds_no_grids_is_refused(tmp_path: Path, write: Callable[[Path], None], fact: str) -> None:
    """Each wrong file is named with what is wrong with it."""
    path = tmp_path / "raw.npz"
    write(path)
    with pytest.raises(InputError) as caught:
        read_grids(path)
    assert fact in str(caught.value)


def test_a_bomb_costs_nothing(tmp_path: Path) -> None:
    """A gigabyte of zeros in a file of one megabyte is refused by its declared size."""
    path = tmp_path / "raw.npz"
    header = _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 16384, 16384)}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("output_cov.npy", "output_bbox.npy"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(header)
                for _ in range(1024):
                    member.write(bytes(1 << 20))
    assert path.stat().st_size < 4 << 20
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="declares too much"):
            read_grids(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_grids_of_another_network_are_refused(tmp_path: Path) -> None:
    """Another number of classes, or a grid that no stride makes of the input."""
    cov, bbox = grids()
    found = read_grids(save(tmp_path / "raw.npz", output_cov=cov, output_bbox=bbox))
    two = DetectorParams.from_dict({**PARAMS.to_dict(), "classes": [{"name": "car"}, {"name": "bus"}]})
    with pytest.raises(InputError, match="holds 1 classes, and the settings name 2"):
        decode_grids(found, two)
    square = DetectorParams.from_dict({**PARAMS.to_dict(), "input": {"channels": 3, "height": 960, "width": 96}})
    with pytest.raises(InputError, match="does not fit the input size"):
        decode_grids(found, square)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("", "not a params"),
        ("[1]", "not a params"),
        ("{}", "not a params"),
        ("[" * 100_000, "not JSON"),
        ("nul", "not JSON"),
    ],
)
def test_a_params_file_that_is_none_is_refused(tmp_path: Path, content: str, fact: str) -> None:
    """What is no params.json is named; a good one is read."""
    path = tmp_path / "params.json"
    path.write_text(content)
    with pytest.raises(InputError, match=fact):
        params_from_file(path)
    path.write_text(json.dumps(PARAMS.to_dict()))
    assert params_from_file(path) == PARAMS
    with pytest.raises(InputError, match="cannot be read"):
        params_from_file(tmp_path / "none.json")
    with pytest.raises(InputError, match="not a file"):
        params_from_file(tmp_path)
