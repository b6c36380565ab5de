"""Mutual exclusion among running operations, with nothing but a ClearML server between them.

ClearML has no lock and no compare-and-swap, but its tasks can be written, and listed with what others wrote. That
is enough (E. W. Dijkstra, Solution of a problem in concurrent programming control, 1965): who wants something says
so, says that it holds it, and only then looks whether somebody else says the same. Of two that do so at once, the one
that wrote later sees the other. Who came first only decides who may try again first, so clocks do no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["HOLDING", "NOTHING", "WANTING", "Board", "Claim", "ClaimState", "Outcome", "acquire", "decide"]

ClaimState: TypeAlias = Literal["", "wanting", "holding"]
NOTHING: Final = ""
WANTING: Final = "wanting"
HOLDING: Final = "holding"
Outcome: TypeAlias = Literal["go", "wait", "held"]
PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one running operation says of one thing; `order` sorts by when the operations were made."""

    owner: str
    order: tuple[str, str]
    state: ClaimState


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Where claims are written and read: `write` ours, `others` those of all operations that still run."""

    order: tuple[str, str]  # ours
    write: Callable[[ClaimState], None]
    others: Callable[[], Sequence[Claim]]


def decide(order: tuple[str, str], others: Sequence[Claim]) -> tuple[Outcome, Claim | None]:
    """Say whether one that wants may go on to hold: somebody holds it, somebody older wants it, or nobody does."""
    for claim in others:
        if claim.state == HOLDING:
            return "held", claim
    older = [claim for claim in others if claim.state == WANTING and claim.order < order]
    return ("wait", min(older, key=lambda claim: claim.order)) if older else ("go", None)


def acquire(board: Board, *, patience_s: float, give_up_if_held: bool = False) -> Claim | None:
    """Hold what the board is about, and return None; or the claim that stood in the way, and hold nothing.

    At most one operation holds it at any time, and of several that try at once one comes through. One that is held
    is waited for, up to `patience_s`, unless `give_up_if_held`; an older one that only wants it is always waited for.
    """
    deadline = time.monotonic() + patience_s
    board.write(WANTING)
    while True:
        outcome, rival = decide(board.order, board.others())
        if outcome == "go":
            board.write(HOLDING)
            rival = next((claim for claim in board.others() if claim.state == HOLDING), None)
            if rival is None:
                return None
            board.write(WANTING)  # both said so at once, and both step back
        elif (outcome == "held" and give_up_if_held) or time.monotonic() > deadline:
            board.write(NOTHING)
            return rival
        time.sleep(PAUSE_S)
