"""When requests start, which image each sends, and where to."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter

import pytest

from tao2serve.loadtest.arrivals import arrivals
from tao2serve.loadtest.choosing import image_order, target_order
from tao2serve.loadtest.plan import OpenLoop


def within(shape: OpenLoop, seconds: float, **part: int) -> list[float]:
    return list(itertools.takewhile(lambda at_s: at_s < seconds, arrivals(shape, **{"seed": 1, **part})))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_constant_arrivals_of_all_processes_are_evenly_spaced(processes: int) -> None:
    """Together they are the arrivals of one process; none drifts, however long the test."""
    shape = OpenLoop(rate_rps=30, arrivals="constant")
    parts = [within(shape, 600, process=process, processes=processes) for process in range(processes)]
    together = sorted(itertools.chain.from_iterable(parts))
    assert together == [number / 30 for number in range(18_000)]


@pytest.mark.parametrize("processes", [1, 4])
def test_poisson_arrivals_of_all_processes_are_poisson(processes: int) -> None:
    """The rate is the rate, and gaps are exponential: their deviation is their mean, and 1/e are longer than it."""
    shape = OpenLoop(rate_rps=50)
    parts = [within(shape, 400, process=process, processes=processes) for process in range(processes)]
    together = sorted(itertools.chain.from_iterable(parts))
    gaps_s = [after - before for before, after in itertools.pairwise(together)]
    assert len(together) == pytest.approx(20_000, rel=0.03)
    assert statistics.stdev(gaps_s) == pytest.approx(statistics.fmean(gaps_s), rel=0.04)
    assert sum(gap > 0.02 for gap in gaps_s) / len(gaps_s) == pytest.approx(0.368, abs=0.015)


def test_arrivals_repeat_with_their_seed_and_differ_between_processes() -> None:
    """Two runs of a plan send at the same times; two processes never do."""
    shape = OpenLoop(rate_rps=20)
    assert within(shape, 10) == within(shape, 10)
    assert within(shape, 10) != within(shape, 10, seed=2)
    assert not set(within(shape, 10, processes=2)) & set(within(shape, 10, process=1, processes=2))


def test_images_in_turn_start_apart() -> None:
    """Senders do not all send the largest image at the same time, and each sends all of them."""
    orders = [
        list(itertools.islice(image_order(6, "cycle", seed=1, sender=sender, senders=3), 9)) for sender in range(3)
    ]
    assert orders == [[0, 1, 2, 3, 4, 5, 0, 1, 2], [2, 3, 4, 5, 0, 1, 2, 3, 4], [4, 5, 0, 1, 2, 3, 4, 5, 0]]


def test_sampled_images_are_drawn_by_seed_and_sender() -> None:
    """Each about as often; the same again with the same seed, others for another sender."""

    def drawn(seed: int = 1, sender: int = 0) -> list[int]:
        return list(itertools.islice(image_order(5, "sample", seed=seed, sender=sender, senders=2), 5000))

    assert drawn() == drawn()
    assert drawn() != drawn(seed=2)
    assert drawn() != drawn(sender=1)
    assert [drawn().count(image) for image in range(5)] == pytest.approx([1000] * 5, rel=0.1)


def test_targets_are_drawn_by_weight() -> None:
    """3 to 1 is three quarters; a single target costs no draw and is always the one."""
    drawn = Counter(itertools.islice(target_order([3, 1], seed=1, sender=0), 4000))
    assert drawn[0] == pytest.approx(3000, rel=0.05)
    assert set(itertools.islice(target_order([0.2], seed=1, sender=0), 10)) == {0}
