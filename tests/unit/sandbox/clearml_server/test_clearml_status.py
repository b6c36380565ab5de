"""The states of a task."""

from __future__ import annotations

import pytest

from tao2serve.sandbox.clearml_server.services.tasks.status import MOVES, may_move

# As recorded: from each state, the states it may reach without force.
RECORDED = {
    "created": {"queued", "in_progress"},
    "queued": {"created", "in_progress", "stopped"},
    "in_progress": {"stopped", "failed", "created", "completed"},
    "stopped": {"closed", "created", "failed", "queued", "in_progress", "published", "completed"},
    "failed": {"created", "stopped", "published", "queued"},
    "completed": {"published", "in_progress", "created"},
    "published": set(),
}


@pytest.mark.parametrize("current", sorted(RECORDED))
def test_moves_are_the_recorded_ones(current: str) -> None:
    """Every move that was recorded as allowed is allowed, and no other."""
    reached = {new for new in RECORDED if may_move(current, new)} | (MOVES[current] & {"closed"})
    assert reached == RECORDED[current] | {current}
