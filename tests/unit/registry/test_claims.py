"""Claims: of those that try at once exactly one holds, whatever the order of their reads and writes."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tao2serve.registry import claims
from tao2serve.registry.claims import HOLDING, NOTHING, WANTING, Board, Claim, ClaimState, acquire, decide


class Blackboard:
    """Registers that all see, read and written in an order that a seed decides: whoever is let on makes one access."""

    def __init__(self, runners: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._states: dict[str, ClaimState] = {}
        self._waiting: set[str] = set()
        self._running = runners
        self._next = ""
        self._change = threading.Condition()

    def access(self, name: str) -> None:
        """Return when it is this one's time; only when all have come here is the next one drawn."""
        with self._change:
            self._waiting.add(name)
            self._draw()
            self._change.wait_for(lambda: self._next == name)
            self._next = ""
            self._waiting.discard(name)

    def end(self) -> None:
        """One comes here no more; what it said last stays to be read."""
        with self._change:
            self._running -= 1
            self._draw()

    def _draw(self) -> None:
        if not self._next and self._waiting and len(self._waiting) == self._running:
            self._next = self._random.choice(sorted(self._waiting))
        self._change.notify_all()

    def board(self, name: str, order: tuple[str, str]) -> Board:
        def write(state: ClaimState) -> None:
            self.access(name)
            self._states[name] = state

        def others() -> Sequence[Claim]:
            self.access(name)
            return [
                Claim(owner=other, order=(other, other), state=state)
                for other, state in self._states.items()
                if other != name
            ]

        return Board(order=order, write=write, others=others)


def run_all(runners: int, seed: int, *, give_up_if_held: bool) -> list[str]:
    """Let all try at once; those that come through hold on to it unless others wait for them. Returns who held it."""
    blackboard = Blackboard(runners, seed)
    inside: list[str] = []
    held: list[str] = []

    def run(name: str) -> None:
        board = blackboard.board(name, (name, name))
        if acquire(board, patience_s=60, give_up_if_held=give_up_if_held) is None:
            inside.append(name)
            held.append(name)
            if not give_up_if_held:
                blackboard.access(name)
            assert inside == [name], f"seed {seed}"
            if not give_up_if_held:
                inside.remove(name)
                board.write(NOTHING)
        blackboard.end()

    with ThreadPoolExecutor(runners) as pool:
        for future in [pool.submit(run, name) for name in "abc"[:runners]]:
            future.result(timeout=60)
    return held


@pytest.mark.parametrize("runners", [2, 3])
def test_exactly_one_of_those_that_try_at_once_holds(runners: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 orders of reads and writes: one goes on, and the others give up."""
    monkeypatch.setattr(claims, "PAUSE_S", 0)
    for seed in range(200):
        assert len(run_all(runners, seed, give_up_if_held=True)) == 1, f"seed {seed}"


@pytest.mark.parametrize("runners", [2, 3])
def test_those_that_wait_come_through_one_after_the_other(runners: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 orders of reads and writes: all hold it once, never two at a time."""
    monkeypatch.setattr(claims, "PAUSE_S", 0)
    for seed in range(100):
        assert sorted(run_all(runners, seed, give_up_if_held=False)) == list("abc"[:runners]), f"seed {seed}"


def claim(owner: str, state: ClaimState) -> Claim:
    return Claim(owner=owner, order=(owner, owner), state=state)


@pytest.mark.parametrize(
    ("others", "outcome"),
    [
        ([], "go"),
        ([claim("z", NOTHING), claim("a", NOTHING)], "go"),
        ([claim("z", WANTING)], "go"),
        ([claim("a", WANTING), claim("z", WANTING)], "wait"),
        ([claim("a", WANTING), claim("z", HOLDING)], "held"),
    ],
)
def test_who_may_go_on(others: list[Claim], outcome: str) -> None:
    """Whoever holds bars the way, then whoever is older and wants; the one that bars is named."""
    decided, rival = decide(("m", "m"), others)
    assert decided == outcome
    assert (rival is None) == (outcome == "go")


def test_patience_ends() -> None:
    """What stays held is named in the end, and nothing of ours is left on the board."""
    written: list[ClaimState] = []
    board = Board(order=("b", "b"), write=written.append, others=lambda: [claim("a", HOLDING)])
    rival = acquire(board, patience_s=0.05)
    assert rival is not None
    assert rival.owner == "a"
    assert written == [WANTING, NOTHING]
