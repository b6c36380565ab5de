"""Which requests of a test are measured: one rule, for every number, figure and table that is made of them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tao2serve.loadtest.plan import LoadPlan
from tao2serve.loadtest.records import RequestRecord

__all__ = ["Phase", "is_measured", "phase_at", "phase_of"]

Phase: TypeAlias = Literal["warmup", "run", "after"]


def phase_at(*, intended_s: float, start_s: float, is_open: bool, run_time_s: float) -> Phase:
    """Return where a request counts: in an open loop by when it was due, in a closed one by when it was sent.

    A generator that stands still at the end of the run time sends what was due in it afterwards. By the real start
    the latest requests of all would be in no number, and what was due in the warm-up would be in them.
    """
    at_s = intended_s if is_open else start_s
    if at_s < 0:
        return "warmup"
    return "run" if at_s < run_time_s else "after"


def phase_of(plan: LoadPlan, record: RequestRecord) -> Phase:
    return phase_at(
        intended_s=record.intended_s, start_s=record.start_s, is_open=plan.is_open, run_time_s=plan.run_time_s
    )


def is_measured(plan: LoadPlan, record: RequestRecord) -> bool:
    return phase_of(plan, record) == "run"
