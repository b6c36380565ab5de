"""Pictures that a user names, and the pixels an endpoint sees of them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tao2serve.errors import InputError, UsageError
from tao2serve.images import find_images, name_images, open_upright, read_image
from tao2serve.runtime import DetectorParams
from tao2serve.runtime.preprocess import read_pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in a folder and its subfolders, with what is none."""
    for name in ("a.jpg", "a.png", "c.JPEG", "notes.txt", "sub/a.jpg", "sub/deep/d.webp", "none/readme"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "pictures"


def names(*sources: Path, **options: object) -> list[tuple[str, str]]:
    return [(one.name, one.stem) for one in name_images(sources, **options)]


def test_a_folder_gives_its_pictures_by_name(folder: Path) -> None:
    """Without those of subfolders; equal stems get numbers."""
    assert names(folder) == [("a.jpg", "a"), ("a.png", "a-2"), ("c.JPEG", "c")]


@pytest.mark.parametrize("recursive", [False, True])
def test_what_cannot_be_read_in_a_folder_is_not_passed_over(tmp_path: Path, recursive: bool) -> None:
    """Empty files, links to nothing and pipes named like pictures are taken: reading them tells. No folders."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "folder.jpg")
    found = name_images((tmp_path,), recursive=recursive)
    assert [one.name for one in found] == ["empty.jpg", "gone.jpg", "loop.png", "pipe.jpg"]
    problems = []
    for one in found:
        with pytest.raises(InputError) as caught:
            read_image(one.path)
        problems.append((caught.value.fact, caught.value.evidence))
    assert problems[:2] == [
        ("cannot be read", "the file is empty"),
        ("cannot be read", "No such file or directory"),
    ]
    with pytest.raises(InputError, match="holds no image"):  # other commands need pictures that hold something
        find_images(tmp_path)


def test_subfolders_keep_their_place_in_the_names(folder: Path) -> None:
    """The path below the folder that was named, so that equal names do not meet."""
    assert names(folder, recursive=True) == [
        ("a.jpg", "a"), ("a.png", "a-2"), ("c.JPEG", "c"), ("sub/a.jpg", "sub/a"), ("sub/deep/d.webp", "sub/deep/d"),
    ]  # fmt: skip


def test_a_picture_named_twice_is_asked_about_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself and through its folder, by whatever path."""
    monkeypatch.chdir(folder)
    sources = (Path("a.jpg"), folder, folder / "sub" / ".." / "a.jpg", Path("c.JPEG"))
    assert [one.name for one in name_images(sources)] == ["a.jpg", "a.png", "c.JPEG"]


def test_equal_names_in_different_folders_differ(folder: Path) -> None:
    """In what documents call them and in the files made from them, whichever way they are named."""
    found = name_images((folder / "a.jpg", folder / "sub" / "a.jpg", folder / "sub"))
    assert [one.stem for one in found] == ["a", "a-2"]
    assert [one.name for one in found] == ["a.jpg", os.path.realpath(folder / "sub" / "a.jpg")]
    (folder / "a-2.jpg").write_bytes(b"x")
    stems = [one.stem for one in name_images((folder / "a.jpg", folder / "sub" / "a.jpg", folder / "a-2.jpg"))]
    assert len(set(stems)) == 3


def test_the_second_of_one_path_has_its_absolute_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when folders are named from where one is: what reads the names need not know where that was."""
    monkeypatch.chdir(folder.parent)
    (folder / "none" / "a.jpg").write_bytes(b"x")
    first, second, *_ = name_images((Path("pictures/sub"), Path("pictures/none")))
    assert (first.name, second.name) == ("a.jpg", os.path.realpath("pictures/none/a.jpg"))
    assert (first.stem, second.stem) == ("a", "a-2")


def test_what_an_earlier_run_drew_is_no_picture_of_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output folder inside is left out; the folder itself, and that of a picture that is named, are refused."""
    (folder / "sub" / "out").mkdir()
    (folder / "sub" / "out" / "a-detections.png").write_bytes(b"x")
    output = folder / "sub" / "out"
    assert not any("out" in name for name, _ in names(folder, recursive=True, output=output))
    with pytest.raises(UsageError, match="where the pictures lie"):
        name_images((folder / "sub" / "a.jpg", folder), output=folder / "sub" / "..")
    with pytest.raises(UsageError, match="where the pictures lie"):
        name_images((folder / "sub" / "a.jpg", folder / "a.jpg"), output=folder / "sub" / "..")
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="where the pictures lie"):
        name_images((Path("a.jpg"),), output=folder)
    assert len(name_images((Path("sub/a.jpg"), Path("sub/deep")), output=folder)) == 2


def test_a_named_file_is_taken_though_it_is_missing_or_odd(folder: Path) -> None:
    """Reading it will tell; but if nothing at all is there, that is said at once."""
    assert len(names(folder / "a.jpg", folder / "missing.jpg", folder / "notes.txt")) == 3
    with pytest.raises(InputError, match="does not exist"):
        name_images((folder / "missing.jpg",))


@pytest.mark.parametrize("recursive", [False, True])
def test_a_folder_without_pictures_is_bad_input(folder: Path, recursive: bool) -> None:
    """Exit 3, naming it."""
    with pytest.raises(InputError, match="holds no image"):
        name_images((folder / "a.jpg", folder / "none"), recursive=recursive)


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


def source() -> Image.Image:
    generator = np.random.default_rng(7)
    small = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return small.resize((64, 48), Image.Resampling.BICUBIC)


def alpha() -> Image.Image:
    picture = source().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


BODIES = {
    "jpeg": lambda: encoded(source(), "JPEG"),
    "exif": lambda: encoded(source(), "JPEG", exif=turned()),
    "cmyk": lambda: encoded(source().convert("CMYK"), "JPEG"),
    "gray": lambda: encoded(source().convert("L"), "PNG"),
    "one bit": lambda: encoded(source().convert("1"), "PNG"),
    "16 bits": lambda: encoded(Image.fromarray(np.asarray(source().convert("L"), np.uint16) * 257), "PNG"),
    "alpha": lambda: encoded(alpha(), "PNG"),
    "gray and alpha": lambda: encoded(alpha().convert("LA"), "PNG"),
    "palette": lambda: encoded(source().convert("P"), "PNG"),
    "palette, transparent": lambda: encoded(source().convert("P"), "PNG", transparency=3),
    "webp": lambda: encoded(alpha(), "WEBP", lossless=True),
    "bmp": lambda: encoded(source(), "BMP"),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_upright_picture_is_what_the_endpoint_sees(body) -> None:
    """The same size and the same pixels as the code that ships to servers, for every kind of picture."""
    image = body()
    upright = open_upright(image)
    params = DetectorParams.from_dict(
        {"family": "detectnet_v2", "input": {"channels": 3, "height": upright.height, "width": upright.width},
         "bbox_scale": 35.0, "bbox_offset": 0.5, "classes": [{"name": "car"}]}
    )  # fmt: skip
    pixels, size = read_pixels(image, params)  # of the network's size, here the picture's own
    assert size == upright.size
    np.testing.assert_array_equal(np.asarray(upright), pixels)


@pytest.mark.parametrize("image", [b"", b"text", encoded(source(), "JPEG")[:400]])
def test_what_is_no_picture_is_bad_input(image: bytes) -> None:
    """Exit 3 with the reason."""
    with pytest.raises(InputError, match="cannot be decoded"):
        open_upright(image)
