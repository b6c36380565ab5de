"""Which Triton controllers count, and how often they look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tao2serve.serving.controllers import STOCK_FREQUENCY_S, Controller, frequency_s, still_running

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def spoke(name: str, *, every_s: float, ago_s: float) -> tuple[Controller, datetime]:
    return Controller(task_id=name, name=name, frequency_s=every_s), NOW - timedelta(seconds=ago_s)


def test_a_killed_controller_counts_no_more_once_another_has_gone_on() -> None:
    """Its task stays `in_progress` for ever; one that looks rarely may be silent for longer."""
    found = [
        spoke("runs", every_s=1, ago_s=0),
        spoke("slow", every_s=600, ago_s=900),
        spoke("killed", every_s=1, ago_s=120),
    ]
    assert [controller.name for controller in still_running(found)] == ["runs", "slow"]


def test_the_only_controller_counts_however_long_it_was_silent() -> None:
    """The clock of this machine is not asked: it may be wrong."""
    assert len(still_running([spoke("alone", every_s=1, ago_s=10_000)])) == 1
    assert still_running([]) == ()


@pytest.mark.parametrize(
    ("minutes", "seconds"), [("1.0", 60.0), ("0.05", 3.0), ("", STOCK_FREQUENCY_S), ("None", STOCK_FREQUENCY_S),
                             ("0", STOCK_FREQUENCY_S), ("nan", STOCK_FREQUENCY_S), ("inf", STOCK_FREQUENCY_S)],
)  # fmt: skip
def test_the_frequency_is_the_controllers_own_or_the_stock_one(minutes: str, seconds: float) -> None:
    """Its argument is in minutes; what is no sensible number is taken for the stock ten."""
    assert frequency_s(minutes) == pytest.approx(seconds)
