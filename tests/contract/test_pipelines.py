"""The real PipelineController against the sandbox server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def test_a_pipeline_runs_its_steps_and_hands_on_what_they_make(
    flow: Callable[..., dict[str, Any]], server: Any
) -> None:
    """Each step is a task below the controller; nothing it asked was unknown to the server."""
    server.watch()
    seen = flow("pipeline.py", "Contract/pipelines")
    assert seen["result"] == "8"
    assert seen["steps"] == {"first": ["completed", True], "second": ["completed", True]}
    assert seen["controller"] == ["controller", True]
    with server.client() as client:
        assert client.get("/_control/unhandled").json()["count"] == 0
