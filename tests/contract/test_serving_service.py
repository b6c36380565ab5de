"""What we write into a serving service, through the real clearml-serving, while another program writes too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def test_no_reader_ever_sees_a_route_that_freezes(
    flow: Callable[..., dict[str, Any]], server: Any, tmp_path: Path
) -> None:
    """After each single write: weights above 0, versions registered; overwritten changes are made again.

    So is a version's preprocess code that is gone from the storage, though the version is registered.
    """
    seen = flow("serving_service.py", str(tmp_path))
    assert seen["moments"] > 30
    assert seen["frozen_moments"] == []
    assert seen["always_led_somewhere"] is True
    assert seen["writes_of_no_change"] == 0
    assert seen["code"] == [True, False, *(True, False), *(True, True)]
    assert seen["weights"] == {"1": 0.9, "2": 0.1}
    assert "alias street routes to street/1" in seen["routed"]
    assert seen["registered_after_refusal"] == [1, 2, 3]
    assert "alias cars routes to street/3" in seen["freezing"]
    assert seen["after_one"] == {"2": 1.0}
    assert "written 3 times" in seen["after_many"]
    assert seen["end"] == [[], 4]
    assert seen["instances"] == 0
    server.assert_answered()
