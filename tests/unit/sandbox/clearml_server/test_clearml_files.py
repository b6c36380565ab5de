"""The file server's paths and its reading of multipart bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao2serve.sandbox.clearml_server.files.multipart import (
    MultipartError,
    PartBytes,
    PartStart,
    boundary_of,
    read_parts,
)
from tao2serve.sandbox.clearml_server.files.paths import UnsafePathError, locate, safe_parts


@given(st.text())
def test_no_path_leaves_the_folder(text: str) -> None:
    """Whatever the client writes, the place is inside the folder or the path is refused."""
    root = Path("/srv/files")
    try:
        place = locate(root, text)
    except UnsafePathError:
        return
    assert place != root
    assert place.is_relative_to(root)
    assert ".." not in place.parts
    assert "\0" not in str(place)


@pytest.mark.parametrize("path", ["", "/", "..", "a/../b", "/../x", "a/./b", "a\0b", "x" * 256, "\ud800"])
def test_unsafe_paths_are_refused(path: str) -> None:
    """Empty, climbing, NUL, over-long and broken paths name no file."""
    with pytest.raises(UnsafePathError):
        safe_parts(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link inside the folder, even to the folder, is refused wherever it stands in the path."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    for path in ("link", "link/file", "link/root/file"):
        with pytest.raises(UnsafePathError):
            locate(tmp_path / "root", path)


async def _chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _read(body: bytes, boundary: bytes, size: int) -> list[tuple[str, bytes]]:
    async def collect() -> list[tuple[str, bytes]]:
        parts: list[tuple[str, bytes]] = []
        async for piece in read_parts(_chunks(body, size), boundary):
            if isinstance(piece, PartStart):
                parts.append((piece.name, b""))
            elif isinstance(piece, PartBytes):
                name, content = parts[-1]
                parts[-1] = (name, content + piece.content)
        return parts

    return asyncio.run(collect())


def _encode(parts: list[tuple[str, bytes]], boundary: bytes) -> bytes:
    body = b""
    for name, content in parts:
        head = f'Content-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'
        body += b"--" + boundary + b"\r\n" + head.encode() + content + b"\r\n"
    return body + b"--" + boundary + b"--\r\n"


_NAMES = st.text(st.characters(exclude_characters='"\\%', exclude_categories=("Cc", "Cs")), max_size=20)
_CONTENTS = st.lists(st.sampled_from([b"\r\n", b"--", b"b0", b"x", b"\r\n--b0x", b"\n"])).map(b"".join)


@given(st.lists(st.tuples(_NAMES, _CONTENTS), min_size=1, max_size=3), st.integers(1, 50))
def test_parts_come_out_as_they_went_in(parts: list[tuple[str, bytes]], size: int) -> None:
    """However the body is cut into chunks, names and bytes are those that were sent."""
    boundary = b"b0undary"
    assert _read(_encode(parts, boundary), boundary, size) == parts


@given(st.integers(0, 90), st.integers(1, 20))
def test_a_body_that_breaks_off_is_an_error(cut: int, size: int) -> None:
    """Without its last boundary a body is never taken for complete."""
    body = _encode([("a/b", b"content of the file")], b"b0undary")
    with pytest.raises(MultipartError):
        _read(body[: min(cut, len(body) - 4)], b"b0undary", size)


def test_boundaries() -> None:
    """The boundary comes from the header; other bodies are refused."""
    assert boundary_of('multipart/form-data; boundary="abc"') == b"abc"
    with pytest.raises(MultipartError):
        boundary_of("application/json")


def test_quotes_and_backslashes_in_names() -> None:
    """Names are read as urllib3 and requests write them."""
    body = _encode([("a%22b\\\\c", b"x")], b"q")
    assert _read(body, b"q", 7) == [('a"b\\c', b"x")]
