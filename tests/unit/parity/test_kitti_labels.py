"""KITTI label files, good and bad, and which image they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tao2serve.errors import InputError
from tao2serve.parity.labels import match_labels, read_labels

TAIL = " 0.00" * 7
SAMPLE = Path(__file__).parents[3] / "tao2serve" / "sandbox" / "sample"


def _file(folder: Path, text: str) -> Path:
    path = folder / "image.txt"
    path.write_text(text)
    return path


def test_a_file_as_kitti_writes_it(tmp_path: Path) -> None:
    """Names become lower case, boxes keep their fractions, the order is the file's, 16 columns are allowed."""
    text = f"Car 0.00 1 -1.5 10.25 20 30.5 40{TAIL}\n\n  DontCare -1 -1 -10 0 0 5 5{TAIL} 0.93\r\n"
    labels = read_labels(_file(tmp_path, text))
    assert labels.names == ("car", "dontcare")
    np.testing.assert_array_equal(labels.xyxy, np.array([[10.25, 20, 30.5, 40], [0, 0, 5, 5]], dtype=np.float32))
    assert labels.left_out == 0


def test_an_empty_file_is_an_image_without_objects(tmp_path: Path) -> None:
    """No line is no object, in arrays of the right shape."""
    labels = read_labels(_file(tmp_path, "\n"))
    assert len(labels) == 0
    assert labels.xyxy.shape == (0, 4)


def test_objects_without_a_whole_pixel_are_left_out_and_counted(tmp_path: Path) -> None:
    """TAO's converter skips boxes whose corners fall on one pixel or are the wrong way round."""
    text = f"car 0 0 0 10.1 20 10.9 40{TAIL}\ncar 0 0 0 30 20 10 40{TAIL}\ncar 0 0 0 10.9 20 11.1 40{TAIL}\n"
    labels = read_labels(_file(tmp_path, text))
    assert (len(labels), labels.left_out) == (1, 2)


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("car 0.00 0 0.00 1 2 3 4", "has 8 columns"),
        (f"traffic light 0 0 0 1 2 3 4{TAIL} 0", "has 17 columns"),
        (f"traffic light 0 0 0 1 2 3 4{TAIL}", "column that is no number"),
        (f"car 0 0 0 one 2 3 4{TAIL}", "column that is no number"),
        (f"car 0 0 0 nan 2 3 4{TAIL}", "not in pixels"),
        (f"car 0 0 0 1 2 inf 4{TAIL}", "not in pixels"),
        (f"car 0 0 0 1 2 1e300 4{TAIL}", "not in pixels"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path: Path, line: str, fact: str) -> None:
    """A line that is no KITTI label is an InputError with file, line number and the line."""
    path = _file(tmp_path, f"car 0 0 0 1 2 3 4{TAIL}\n{line}\n")
    with pytest.raises(InputError, match=fact) as caught:
        read_labels(path)
    assert caught.value.subject == f"{path}, line 2"
    assert line.split()[0] in caught.value.evidence


def test_files_that_are_no_label_files(tmp_path: Path) -> None:
    """Missing, binary and overlong files are InputErrors."""
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(InputError, match="is not a file"):
        read_labels(tmp_path)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_labels(binary)
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate((4 << 20) + 1)
    with pytest.raises(InputError, match="too large"):
        read_labels(tmp_path / "large.txt")


def test_the_sample_has_a_label_file_for_every_picture() -> None:
    """The packaged pictures and labels pair up without a remark, in the order of the pictures."""
    images = sorted((SAMPLE / "images").glob("*.jpg"))
    found = match_labels(images, SAMPLE / "labels")
    assert [image for image, _ in found.pairs] == images
    assert all(image.stem == label.stem for image, label in found.pairs)
    assert found.notes == ()
    assert {name for _, label in found.pairs for name in read_labels(label).names} == {"car", "person", "road_sign"}


def test_what_has_no_partner_is_said(tmp_path: Path) -> None:
    """Images without labels and labels without images are listed and worded."""
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    (tmp_path / "notes.md").touch()
    found = match_labels([Path("a.jpg"), Path("c.jpg"), Path("d.jpg")], tmp_path)
    assert found.pairs == ((Path("a.jpg"), tmp_path / "a.txt"),)
    assert found.images_without_labels == (Path("c.jpg"), Path("d.jpg"))
    assert found.labels_without_images == (tmp_path / "b.txt",)
    assert "2 images without a label file" in found.notes[0]
    assert "c.jpg, d.jpg" in found.notes[0]
    assert found.notes[1] == "1 label file without an image: b.txt"


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    """A folder that is missing, that fits no image, or whose file would serve two images is refused."""
    with pytest.raises(InputError, match="not a folder that can be read"):
        match_labels([Path("a.jpg")], tmp_path / "none")
    (tmp_path / "x.txt").touch()
    with pytest.raises(InputError, match="no label file for any") as caught:
        match_labels([Path("a.jpg")], tmp_path)
    assert "a.jpg" in caught.value.evidence
    assert "x.txt" in caught.value.evidence
    with pytest.raises(InputError, match="belongs to two images"):
        match_labels([Path("x.jpg"), Path("x.png")], tmp_path)
