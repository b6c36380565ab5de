"""The recorded exchanges with ClearML's file server, replayed: same status, same content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.usefixtures("embedded")


def test_files_are_answered_as_recorded(golden: Path, server: Any) -> None:
    """Uploads answer with their paths, downloads with the bytes, deletion with the path."""
    recording = golden / "clearml" / "files.jsonl"
    if not recording.is_file():
        pytest.skip("the reference data holds no recorded exchanges with ClearML's file server")
    compared = 0
    with httpx.Client(base_url=server.files, auth=server.keys, timeout=30) as client:
        for row in map(json.loads, recording.read_text().splitlines()):
            content = _replayable(row)
            if content is None:
                continue
            headers = {key: row["req_headers"][key] for key in ("Content-Type",) if key in row["req_headers"]}
            answer = client.request(row["method"], row["path"], content=content, headers=headers)
            assert answer.status_code == row["status"], (row["path"], answer.text)
            assert _comparable(answer) == row["response"], row["path"]
            compared += 1
    assert compared >= 15


def _replayable(row: dict[str, Any]) -> bytes | None:
    """Return the body to send; None where the recording kept only the size of a binary."""
    if any(str(row[side]).startswith("<") and "bytes>" in str(row[side]) for side in ("request", "response")):
        return None
    request = row["request"]
    return request.encode() if request else b""


def _comparable(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text
