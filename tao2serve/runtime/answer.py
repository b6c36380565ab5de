"""The endpoint's request and response: bytes or JSON in, the documented JSON object out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .preprocess import MAX_BYTES, ImageError
from .values import Detections, DetectorParams

MAX_IMAGES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Which model version answers; copied into every response."""

    endpoint: str
    version: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds spent in each stage of one image."""

    preprocess: float
    infer: float
    postprocess: float
    total: float


def images_of(body: Any, *, max_bytes: int = MAX_BYTES) -> tuple[tuple[bytes | str, ...], bool]:
    """Return (the images of a request body, whether they were sent as a list); base64 is not decoded yet.

    A body is the image's bytes, or `{"image": base64}`, or `{"images": [base64, …]}`. Raises ImageError with
    one sentence for anything else, and for more than `max_bytes` in all. A URL is never fetched, and a member
    "format" is not needed: the bytes say it.
    """
    if body is None:
        return (b"",), False
    if isinstance(body, bytes | bytearray):
        return (bytes(body),), False
    if not isinstance(body, Mapping):
        raise ImageError('the body is neither image bytes nor a JSON object with "image" or "images"')
    if "image" in body and "images" in body:
        raise ImageError('the JSON object has both "image" and "images"; send one of them')
    is_list = "image" not in body
    images = body.get("images") if is_list else [body["image"]]
    if not isinstance(images, list) or not images:
        raise ImageError('the JSON object has neither "image" nor a non-empty list "images"')
    if len(images) > MAX_IMAGES:
        raise ImageError(f"the request has {len(images)} images, and the limit is {MAX_IMAGES}")
    for index, image in enumerate(images):
        _check(image, f"images[{index}]" if is_list else "image")
    # base64 takes 4 characters for 3 bytes.
    if sum(len(image) for image in images) > max_bytes * 4 // 3 + 4 * len(images):
        raise ImageError(f"the request is larger than the limit of {max_bytes:,} bytes of images")
    return tuple(images), is_list


def decoded(image: bytes | str) -> bytes:
    """Return the bytes of one image of a request; raises ImageError for what is not base64."""
    if isinstance(image, bytes):
        return image
    try:
        return base64.b64decode(image.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ImageError("an image of the request is not valid base64") from error


def _check(image: Any, name: str) -> None:
    if not isinstance(image, str):
        raise ImageError(f'"{name}" is not a string of base64')
    if image.startswith("data:"):
        raise ImageError(f'"{name}" is a data URL; send only the base64 behind its comma')
    if image.startswith(("http://", "https://", "file://")):
        raise ImageError(f'"{name}" is a URL, and URLs are not fetched; send the image itself as base64')


def answer(
    detections: Detections,
    params: DetectorParams,
    *,
    image_size: tuple[int, int],
    model: ServedModel,
    timing: Timing,
) -> dict[str, Any]:
    """Build the response object for one image; boxes are x1, y1, x2, y2 in pixels of the original image."""
    return {
        "image": {"width": image_size[0], "height": image_size[1]},
        "model": {"endpoint": model.endpoint, "version": model.version, "id": model.id},
        "bbox_format": "xyxy",
        "predictions": predictions_of(detections, params),
        "timing_ms": {
            "preprocess": round(timing.preprocess, 3),
            "infer": round(timing.infer, 3),
            "postprocess": round(timing.postprocess, 3),
            "total": round(timing.total, 3),
        },
    }


def predictions_of(detections: Detections, params: DetectorParams) -> list[dict[str, Any]]:
    """Return the detections as the response lists them."""
    return [
        {
            "bbox": [round(side, 3) for side in box],
            "score": round(score, 6),
            "raw_score": round(raw_score, 6),
            "class_id": class_id,
            "label": params.classes[class_id].name,
        }
        for box, score, raw_score, class_id in zip(
            detections.xyxy.tolist(),
            detections.score.tolist(),
            detections.raw_score.tolist(),
            detections.class_id.tolist(),
            strict=True,
        )
    ]
