"""Requests in, responses out: the endpoint's JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tao2serve.runtime import ImageError
from tao2serve.runtime.answer import MAX_IMAGES, decoded, images_of


def test_bytes_and_base64_are_the_same_image() -> None:
    """All three ways of sending give the bytes that were sent."""
    body = b"\xff\xd8 image"
    text = base64.b64encode(body).decode()
    assert images_of(body) == ((body,), False)
    assert images_of({"image": text, "format": "jpeg"}) == ((text,), False)
    assert images_of({"images": [text, text]}) == ((text, text), True)
    assert decoded(text) == decoded(body) == body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "neither"),
        ([1], "neither image bytes nor"),
        ({"image": 5}, "not a string"),
        ({"image": "https://example.org/x.jpg"}, "URL"),
        ({"image": "file:///etc/passwd"}, "URL"),
        ({"image": "data:image/jpeg;base64,QQ=="}, "data URL"),
        ({"image": "QQ==", "images": ["QQ=="]}, "both"),
        ({"images": "x"}, "non-empty list"),
        ({"images": []}, "non-empty list"),
        ({"images": ["QQ=="] * (MAX_IMAGES + 1)}, "limit"),
        ({"images": ["QQ==", None]}, r"images\[1\]"),
        ({"image": "A" * 60_000_000}, "limit"),
        ({"images": ["A" * 6_000_000] * 10}, "limit"),
    ],
)
def test_everything_else_is_refused_in_one_sentence(body: Any, words: str) -> None:
    """Wrong JSON raises ImageError naming the member."""
    with pytest.raises(ImageError, match=words):
        images_of(body)


@pytest.mark.parametrize("text", ["*", "é", "QQ"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    """Also when it looks nearly right."""
    with pytest.raises(ImageError, match="base64"):
        decoded(text)


@pytest.fixture
def preprocess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The endpoint's class on a Triton that is not there (port 9), beside its two files."""
    from tao2serve.runtime import endpoint

    settings = {
        "model": {"endpoint": "street", "version": "1", "id": "abc"},
        "triton_model": "street_1", "placement": "endpoint", "resize": "lanczos", "input": "float32",
        "boxes": "offsets", "input_name": "i", "coverage_name": "c", "bbox_name": "b",
        "deadline_s": 0.5, "max_pixels": 10_000, "max_bytes": 100_000,
    }  # fmt: skip
    params = {
        "family": "detectnet_v2", "input": {"channels": 3, "height": 32, "width": 32}, "bbox_scale": 35.0,
        "bbox_offset": 0.5, "classes": [{"name": "car"}],
    }  # fmt: skip
    (tmp_path / "endpoint.json").write_text(json.dumps(settings))
    (tmp_path / "params.json").write_text(json.dumps(params))
    monkeypatch.setattr(endpoint, "__file__", str(tmp_path / "endpoint.py"))
    monkeypatch.setenv("CLEARML_DEFAULT_TRITON_GRPC_ADDR", "127.0.0.1:9")
    return endpoint.Preprocess()


def answered(preprocess: Any, body: Any) -> tuple[int, str]:
    response = asyncio.run(preprocess.process(body, {}))
    return response.status_code, json.loads(response.body)["detail"]


def test_a_bad_body_is_returned_as_422_not_raised(preprocess: Any) -> None:
    """clearml-serving logs every exception to ClearML; a refusal is a response."""
    assert answered(preprocess, b"hello")[0] == 422
    assert answered(preprocess, None)[0] == 422
    assert answered(preprocess, b"x" * 200_000)[0] == 422


def test_a_triton_that_is_away_is_503(preprocess: Any) -> None:
    """The caller hears which model cannot run, within the deadline."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (50, 50)).save(buffer, format="PNG")
    status, detail = answered(preprocess, buffer.getvalue())
    assert status in (503, 504)
    assert "street_1" in detail
