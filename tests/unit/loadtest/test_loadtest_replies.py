"""What answers and failures say."""

from __future__ import annotations

import errno
import json

import pytest

from tao2serve.loadtest.replies import refusal, server_timing, socket_failure

IMPOSSIBLE = (
    b'{"timing_ms": {"infer": NaN, "total": 1}}',
    b'{"timing_ms": {"infer": 1, "total": 1e999}}',
    b'{"timing_ms": {"infer": -1}}',
    b'{"timing_ms": {"infer": true}}',
    json.dumps({"timing_ms": dict.fromkeys(map(str, range(21)), 1.0)}).encode(),
    json.dumps({"timing_ms": {"x" * 100: 1.0}}).encode(),
)
TIMING = {"preprocess": 1.5, "total": 4}


@pytest.mark.parametrize(
    "document",
    [
        {"timing_ms": TIMING, "predictions": []},
        {"predictions": [{"label": 'a "timing_ms": {"total": 9}', "bbox": [1, 2]}], "timing_ms": TIMING},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_the_servers_timing_is_found(document: dict[str, object], indent: int | None) -> None:
    """Wherever it stands, and not what a label looks like."""
    assert server_timing(json.dumps(document, indent=indent).encode()) == {"preprocess": 1.5, "total": 4.0}


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"timing_ms": null}', b'{"timing_ms": {"a": "b"}}', *IMPOSSIBLE, b"\xff\x00"]
)
def test_answers_without_timing(content: bytes) -> None:
    """None, whatever else they are."""
    assert server_timing(content) is None


@pytest.mark.parametrize(
    ("text", "detail"),
    [('{"detail": "queue\\n is full"}', "queue is full"), ('{"detail": [1]}', "[1]"), ("<b>no</b>", "<b>no</b>")],
)
def test_a_refusal_has_the_servers_words(text: str, detail: str) -> None:
    """The `detail` of JSON, on one line, or the text itself."""
    assert refusal(503, text) == ("HTTP 503", detail)


def test_failures_of_sockets_have_names() -> None:
    """The kinds by which a report counts them; what a library wraps is looked into."""

    class WrappedError(Exception):
        original = TimeoutError()

    assert socket_failure(WrappedError()) == ("timeout", "")
    assert socket_failure(OSError(errno.ETIMEDOUT, "late")) == ("timeout", "")
    assert socket_failure(ConnectionRefusedError()) == ("connection refused", "")
    assert socket_failure(ConnectionResetError("reset"))[0] == "connection closed"
    assert socket_failure(ValueError("odd")) == ("ValueError", "odd")
