"""How fast models run here, on onnxruntime: in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import InputError
from tao2serve.export.execution import input_dtype, sample_images
from tao2serve.export.inference import open_session
from tao2serve.values import ModelSignature

__all__ = ["BATCH", "Contender", "Speed", "load_average", "measure", "try_out"]

BATCH: Final = 8  # pictures at once, for the throughput
WARM_UP: Final = 3
FEWEST, MOST = 9, 1000  # turns
LATENCY_SHARE: Final = 0.6  # of the time; the rest goes to the throughput


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An ONNX file that takes part."""

    name: str
    path: Path
    signature: ModelSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Medians over turns: one picture at a time, with its quartiles, and pictures a second in batches."""

    latency_ms: float
    quartiles_ms: tuple[float, float]
    throughput: float  # pictures a second
    # Its latency over that of the first model, turn by turn: what slows both leaves it as it is.
    of_first: float
    of_first_quartiles: tuple[float, float]
    turns: int
    batch: int = BATCH

    def to_dict(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        return {
            "latency_ms": round(self.latency_ms, 4),
            "latency_quartiles_ms": [round(value, 4) for value in self.quartiles_ms],
            "latency_of_first": round(self.of_first, 4),
            "latency_of_first_quartiles": [round(value, 4) for value in self.of_first_quartiles],
            "throughput_images_per_s": round(self.throughput, 2),
            "batch": self.batch,
            "turns": self.turns,
        }


def measure(
    contenders: Sequence[Contender], *, seconds: float, on_news: Callable[[str], None] = lambda _: None
) -> list[Speed]:
    """Run all of them in turns for about `seconds` each, and return how fast each was, in their order.

    Each turn runs every model once, beginning with another one. Raises InputError for one that does not run.
    """
    runs = [_runs(contender) for contender in contenders]
    budget_s = seconds * len(contenders)
    single = _in_turns([run for run, _ in runs], budget_s * LATENCY_SHARE, "one picture at a time", on_news)
    batched = _in_turns([run for _, run in runs], budget_s * (1 - LATENCY_SHARE), f"{BATCH} pictures at once", on_news)
    found = []
    for ones, eights in zip(single, batched, strict=True):
        low, middle, high = statistics.quantiles(ones, n=4)
        least, ratio, most = statistics.quantiles([own / one for own, one in zip(ones, single[0], strict=True)], n=4)
        found.append(
            Speed(
                latency_ms=1000 * middle,
                quartiles_ms=(1000 * low, 1000 * high),
                throughput=BATCH / statistics.median(eights),
                of_first=ratio,
                of_first_quartiles=(least, most),
                turns=len(ones),
            )
        )
    return found


def try_out(contender: Contender) -> None:
    """Run a model once in each way that `measure` does. Raises InputError for one that does not run."""
    for run in _runs(contender):
        run()


def _in_turns(
    runs: Sequence[Callable[[], None]], budget_s: float, what: str, on_news: Callable[[str], None]
) -> list[list[float]]:
    for run in runs:
        for _ in range(WARM_UP):
            run()
    taken: list[list[float]] = [[] for _ in runs]
    start = time.monotonic()
    for turn in range(MOST):
        for offset in range(len(runs)):
            index = (turn + offset) % len(runs)
            begun = time.perf_counter()
            runs[index]()
            taken[index].append(time.perf_counter() - begun)
        spent = time.monotonic() - start
        on_news(f"{what}: {turn + 1} turns of {len(runs)} models, {spent:.0f} of {budget_s:.0f} s")
        if spent >= budget_s and turn + 1 >= FEWEST:
            break
    return taken


def _runs(contender: Contender) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what runs the model on one picture, and on a batch."""
    session = open_session(contender.path, calm=True)
    signature = contender.signature
    names = [signature.coverage.name, signature.bbox.name]
    pictures = sample_images(signature, count=BATCH).astype(input_dtype(signature), copy=False)

    def run(images: Any) -> None:
        try:
            session.run(names, {signature.input.name: images})
        except Exception as error:  # its exceptions share no base of their own
            raise InputError(contender.name, "cannot be run by onnxruntime", evidence=str(error)[:300]) from error

    one = pictures[:1]
    return lambda: run(one), lambda: run(pictures)


def load_average() -> float | None:
    """Return how many processes wanted to run in the last minute; None where that is not told."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
