"""A deployed endpoint over HTTP: what it answers (what it refuses: test_bad_bodies.py)."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from labels import read_kitti, unmatched

from tao2serve.sandbox.samples import SAMPLE, pictures

pytestmark = pytest.mark.integration
PICTURES = pictures()


def post(url: str, body: bytes, media_type: str = "image/jpeg") -> httpx.Response:
    return httpx.post(url, content=body, headers={"Content-Type": media_type}, timeout=30, trust_env=False)


def post_json(url: str, document: Any) -> httpx.Response:
    return post(url, json.dumps(document).encode(), "application/json")


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_detections_match_the_labels(answering: dict[str, Any], picture: Path) -> None:
    """Every labelled object of a sample picture is found, and nothing else is."""
    answer = post(answering["endpoint"]["url"], picture.read_bytes()).json()
    labels = read_kitti(SAMPLE / "labels" / f"{picture.stem}.txt")
    missing, surplus = unmatched(labels, answer["predictions"])
    assert not missing
    assert not surplus


def test_answer_has_the_documented_shape(answering: dict[str, Any]) -> None:
    """The response has exactly the documented members, boxes in original pixels, sorted by raw score."""
    answer = post(answering["endpoint"]["url"], PICTURES[0].read_bytes()).json()
    assert set(answer) == {"image", "model", "bbox_format", "predictions", "timing_ms"}
    assert answer["bbox_format"] == "xyxy"
    assert answer["model"] == {
        "endpoint": "street",
        "version": answering["endpoint"]["version"],
        "id": answering["artifact"]["model_id"],
    }
    assert set(answer["timing_ms"]) == {"preprocess", "infer", "postprocess", "total"}
    width, height = answer["image"]["width"], answer["image"]["height"]
    raw = [one["raw_score"] for one in answer["predictions"]]
    assert raw == sorted(raw, reverse=True)
    for one in answer["predictions"]:
        assert set(one) == {"bbox", "score", "raw_score", "class_id", "label"}
        x1, y1, x2, y2 = one["bbox"]
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert 0 <= one["score"] <= 1


def test_bytes_json_and_the_alias_give_the_same_boxes(answering: dict[str, Any]) -> None:
    """An image as bytes, as base64 in JSON, in a list, without a media type, and through the alias: one answer."""
    body = PICTURES[0].read_bytes()
    encoded = base64.b64encode(body).decode()
    url, alias = answering["endpoint"]["url"], answering["endpoint"]["alias_url"]
    answers = [
        post(url, body).json(),
        post(url, body, "application/octet-stream").json(),
        post(alias, body).json(),
        post_json(url, {"image": encoded, "format": "jpeg"}).json(),
        *post_json(url, {"images": [encoded, encoded]}).json()["results"],
    ]
    assert len(answers) == 6
    assert all(answer["predictions"] == answers[0]["predictions"] for answer in answers)


def test_requests_at_once_get_their_own_answers(answering: dict[str, Any]) -> None:
    """Sixteen requests at once, of different pictures: each gets the boxes of its own picture."""
    url = answering["endpoint"]["url"]
    bodies = [path.read_bytes() for path in PICTURES]
    alone = [post(url, body).json()["predictions"] for body in bodies]
    chosen = [index % len(bodies) for index in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: post(url, bodies[index]).json()["predictions"], chosen))
    for index, boxes in zip(chosen, together, strict=True):
        assert [one["label"] for one in boxes] == [one["label"] for one in alone[index]]
        for ours, theirs in zip(boxes, alone[index], strict=True):
            assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=0.05)


def test_an_unknown_endpoint_is_404(answering: dict[str, Any]) -> None:
    """clearml-serving's own answer for what is not registered stands."""
    assert post(answering["endpoint"]["url"] + "9", PICTURES[0].read_bytes()).status_code == 404
