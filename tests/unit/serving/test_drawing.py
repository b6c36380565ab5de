"""Boxes and labels on pictures of any size."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tao2serve.errors import InputError, UsageError
from tao2serve.images import NamedImage
from tao2serve.serving.batch import drawing_places
from tao2serve.serving.drawing import colour_of, draw, drawing_ending, ink_on, save_drawing
from tao2serve.serving.labels import Wanted, place_labels
from tao2serve.serving.lettering import lettering_for
from tao2serve.values import Prediction


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, format="JPEG")
    return buffer.getvalue()


def car(*box: float, class_id: int = 0, label: str = "car") -> Prediction:
    x1, y1, x2, y2 = box
    return Prediction(bbox=(x1, y1, x2, y2), score=0.9, raw_score=1, class_id=class_id, label=label)


SIZES = [(1, 1), (2, 300), (24, 16), (32, 32), (200, 100), (640, 480), (4000, 100), (100, 4000), (1920, 1080)]


@pytest.mark.parametrize("size", SIZES)
def test_drawing_marks_the_box_and_keeps_the_size(size: tuple[int, int]) -> None:
    """Boxes on tiny and large pictures, at and over the edge, of a pixel and of none: size kept, colour there."""
    width, height = size
    boxes = [
        (1.0, 1.0, width / 2, height / 2), (0.0, 0.0, float(width), float(height)), (5.0, 5.0, 5.0, 5.0),
        (width - 1, height - 1, width, height), (-9, -9, -3, -3), (width + 5, 0, width + 9, 4), (9, 9, 2, 2),
    ]  # fmt: skip
    drawn = draw(jpeg(width, height), [car(*box, class_id=number) for number, box in enumerate(boxes)])
    assert drawn.size == size
    colours = {colour for _, colour in drawn.getcolors(maxcolors=width * height)}
    assert colours != {(255, 255, 255)}


def test_a_box_lies_where_it_is_said_to() -> None:
    """Its outline covers the first and last pixels inside, and nothing beyond the dark seam around it."""
    marked = np.asarray(draw(jpeg(400, 400), [car(100, 120, 300, 280, label="x")])) != 255
    rows, columns = np.nonzero(marked.any(axis=2)[140:])[0] + 140, np.nonzero(marked.any(axis=2)[140:])[1]
    assert (columns.min(), columns.max(), rows.max()) == (99, 300, 280)
    inner = marked[140:270, 110:290]
    assert not inner.any()


def test_the_label_is_readable_text_on_its_colour() -> None:
    """A bar of the class's colour above the box, in it letters as dark as can be."""
    drawn = np.asarray(draw(jpeg(400, 300), [car(50, 100, 200, 250)]))
    bar = drawn[86:98, 52:100].reshape(-1, 3).tolist()
    assert bar.count([0xE6, 0x9F, 0x00]) > len(bar) / 3
    assert min(map(sum, bar)) < 60


@pytest.mark.parametrize("class_id", range(40))
def test_text_stands_out_from_every_colour(class_id: int) -> None:
    """WCAG's contrast ratio is above 4.5, what it asks of small text; classes keep their colour."""

    def luminance(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colour = colour_of(class_id)
    other = luminance({"black": "#000000", "white": "#FFFFFF"}[ink_on(colour)])
    light, dark = max(luminance(colour), other), min(luminance(colour), other)
    assert (light + 0.05) / (dark + 0.05) > 4.5
    assert colour == colour_of(class_id)


def test_the_colours_of_twenty_classes_differ() -> None:
    """No two of them are closer than a tenth of the colour cube's side in every channel."""
    colours = [np.array([int(colour_of(i)[start : start + 2], 16) for start in (1, 3, 5)]) for i in range(20)]
    for i, one in enumerate(colours):
        assert all(np.abs(one - other).max() > 25 for other in colours[:i]), i


def wanted(count: int, size: tuple[int, int], seed: int) -> list[Wanted]:
    generator = np.random.default_rng(seed)
    places = generator.uniform((-20, -20), size, (count, 2))
    sides = generator.uniform(1, 150, (count, 2))
    return [
        Wanted(box=(x, y, x + w, y + h), sizes=((90.0, 20.0), (50.0, 20.0)))
        for (x, y), (w, h) in zip(places.tolist(), sides.tolist(), strict=True)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_labels_lie_inside_the_picture_and_not_on_each_other(seed: int) -> None:
    """Of two hundred labels at random places at least 90 % find one, and any two of them share a seam at most."""
    size = (1920, 1080)
    labels = wanted(200, size, seed)
    placed = [
        (x, y, x + one.sizes[form][0], y + one.sizes[form][1])
        for one, place in zip(labels, place_labels(labels, picture=size), strict=True)
        if place is not None
        for form, (x, y) in (place,)
    ]
    assert len(placed) >= 180
    for number, (x1, y1, x2, y2) in enumerate(placed):
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= size[0]
        assert y2 <= size[1]
        for a1, b1, a2, b2 in placed[:number]:
            shared = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            assert shared <= 0.011 * (x2 - x1) * (y2 - y1)


def test_the_surest_predictions_keep_their_labels_where_there_is_no_room() -> None:
    """A hundred equal boxes: the labels nearest to them go to those that come first, and a third stays free."""
    labels = [Wanted(box=(100, 100, 140, 140), sizes=((60.0, 20.0),))] * 100
    places = place_labels(labels, picture=(300, 300))
    assert places[0] is not None
    assert places[0][1] == (100.0, 80.0)
    count = sum(place is not None for place in places)
    assert 2 <= count <= 12
    assert all(place is not None for place in places[:count])
    small = place_labels(labels[:3], picture=(64, 64))
    assert [place is not None for place in small] == [True, False, False]


def test_labels_leave_most_of_the_picture_free() -> None:
    """There is room for sixty labels side by side; those that fill a third are shown."""
    boxes = [
        (60.0 * column, 20.0 * row, 60.0 * column + 60, 20.0 * row + 20) for row in range(12) for column in range(5)
    ]
    places = place_labels([Wanted(box=box, sizes=((60.0, 20.0),)) for box in boxes], picture=(300, 240))
    assert sum(place is not None for place in places) == 300 * 240 // 3 // (60 * 20)


def test_a_thousand_boxes_are_drawn_in_seconds() -> None:
    """Nothing quadratic in Python: seconds on two shared cores, hours otherwise."""
    generator = np.random.default_rng(3)
    corners = generator.uniform((0, 0), (1800, 1000), (1000, 2))
    start = time.monotonic()
    draw(jpeg(1920, 1080), [car(x, y, x + 40, y + 30, class_id=i % 9) for i, (x, y) in enumerate(corners.tolist())])
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("road_sign", "road_sign"),
        ("", "class 4"),
        ("  two   words ", "two words"),
        ("\x1b[31mred\x07", "[31mred"),
        ("\U0010fffd", "class 4"),
    ],
)
def test_a_label_shows_what_can_be_written(label: str, shown: str) -> None:
    """Control characters and what no font holds never reach the picture; the class's number stands in."""
    assert lettering_for(label, class_id=4, size=12).text == shown


@pytest.mark.parametrize(
    "label", ["車両", "автомобиль", "עברית", "🚗", "Fußgänger", "naïve", "a" * 3000, "\ud800", "é\n"]
)
def test_no_label_breaks_the_drawing(label: str) -> None:
    """Whatever a class is called: its name, a plain form of it or its number is drawn inside the picture."""
    assert draw(jpeg(320, 240), [car(10, 50, 200, 200, label=label)]).size == (320, 240)
    assert lettering_for(label, class_id=1, size=12).text


def test_large_drawings_are_jpeg() -> None:
    """A PNG of a hundred megapixels would take minutes; JPEG ends at 65,500 pixels a side."""
    assert drawing_ending(1920, 1080) == ".png"
    assert drawing_ending(12_000, 9_000) == ".jpg"
    assert drawing_ending(70_000, 1_000) == ".png"


def test_a_saved_drawing_reads_as_the_format_of_its_name(tmp_path: Path) -> None:
    """PNG or JPEG, with the picture's size; the folder is made."""
    for name, form in (("x.png", "PNG"), ("x.jpg", "JPEG")):
        with Image.open(save_drawing(jpeg(40, 30), [car(1, 1, 20, 20)], path=tmp_path / "new" / name)) as picture:
            assert (picture.format, picture.size) == (form, (40, 30))


def test_a_drawing_that_cannot_be_saved_is_an_error_of_ours(tmp_path: Path) -> None:
    """A path below a file, or of an unknown ending, exits 2; bytes that are no picture exit 3."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.png", tmp_path / "x.gif"):
        with pytest.raises(UsageError, match="cannot be written"):
            save_drawing(jpeg(20, 20), [], path=path)
    with pytest.raises(InputError, match="cannot be decoded"):
        save_drawing(b"text", [], path=tmp_path / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_drawings_get_names_of_their_own(tmp_path: Path) -> None:
    """Neither another picture's drawing nor a picture that was given is ever written over."""
    paths = [tmp_path / "a.jpg", tmp_path / "a-detections.png", tmp_path / "a-detections-2.jpg"]
    images = [NamedImage(path=path, name=path.name, stem=path.stem) for path in paths]
    places = drawing_places(images, tmp_path / "sub" / "..")
    endings = {f"{place.name}{ending}" for place in places for ending in (".png", ".jpg")}
    assert len(endings) == 6
    assert not endings & {path.name for path in paths}
