"""What `deploy` refuses before it looks anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.cli.deploy import load_gate
from tao2serve.errors import UsageError


@pytest.mark.parametrize(
    ("slo", "images", "run_time"),
    [
        (["p99=50ms"], None, "2s"),
        (None, Path(), "2s"),
        (["p99=50"], Path(), "2s"),
        (["p99=50ms"], Path(), "soon"),
    ],
)
def test_a_load_gate_needs_limits_pictures_and_a_time(
    slo: list[str] | None, images: Path | None, run_time: str
) -> None:
    """Half of it is wrong usage, and says what is missing."""
    with pytest.raises(UsageError):
        load_gate(slo, images, run_time)


def test_a_load_gate_takes_the_words_of_loadtest() -> None:
    """Without --slo there is none; with it the limits are those of `loadtest`."""
    assert load_gate(None, None, "10s") is None
    gate = load_gate(["p99=250ms", "failure-ratio=1%"], Path(), "2s")
    assert gate is not None
    assert [limit.text for limit in gate.gates] == ["p99=250ms", "failure-ratio=0.01"]
    assert gate.run_time_s == 2
