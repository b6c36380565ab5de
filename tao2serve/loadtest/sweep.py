"""A sweep: one run at each of several loads, users or rates."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from tao2serve.errors import UsageError
from tao2serve.loadtest.gates import Gate
from tao2serve.loadtest.plan import Arrivals, ClosedLoop, LoadPlan, OpenLoop, Shape
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.series import LoadSeries, SeriesRun, judged

__all__ = ["OnRun", "RunOnce", "forget_series", "load_of", "parse_sweep", "run_name", "run_sweep"]

RunOnce: TypeAlias = Callable[[LoadPlan], LoadResult]
OnRun: TypeAlias = Callable[[SeriesRun], None]
_LOAD = re.compile(r"(\d+(?:\.\d+)?)\s*(rps|/s)?", re.IGNORECASE)
_RUN_FOLDER = re.compile(r"\d{2,}-[\d.e+-]+(rps|users)")
_RUN_FILES = ("report.html", "result.json", "requests.csv", "locust.log")
_HINT = "users: --sweep 1,2,4,8; or rates: --sweep 10rps,20rps,40rps"


def parse_sweep(text: str, *, arrivals: Arrivals = "poisson") -> tuple[Shape, ...]:
    """Read `1,2,4,8` (users) or `10rps,20rps` (rates of an open loop), in the order given.

    Raises UsageError for anything else, for both kinds in one list, and for a load that is named twice.
    """
    shapes: list[Shape] = []
    for word in text.split(","):
        match = _LOAD.fullmatch(word.strip())
        if match is None or (match[2] is None and not match[1].isdecimal()):
            raise UsageError("--sweep", f"has {word.strip()!r}, which is no load", evidence=text, hint=_HINT)
        if match[2] is None:
            shapes.append(ClosedLoop(users=int(match[1])))
        else:
            shapes.append(OpenLoop(rate_rps=float(match[1]), arrivals=arrivals))
    if len({type(shape) for shape in shapes}) > 1:
        raise UsageError("--sweep", "mixes users and rates", evidence=text, hint=_HINT)
    if len(set(shapes)) < len(shapes):
        raise UsageError("--sweep", "names a load twice", evidence=text, hint=_HINT)
    return tuple(shapes)


def run_sweep(
    plan: LoadPlan, loads: Sequence[Shape], gates: Sequence[Gate] = (), *, run: RunOnce, on_run: OnRun | None = None
) -> LoadSeries:
    """Run the plan at each load, in order, whatever came of the one before.

    `on_run` is told of each run as soon as it has ended, so that an interrupted sweep keeps what it has. Raises what
    `run` raises.
    """
    runs: list[SeriesRun] = []
    for shape in loads:
        runs.append(judged(run(replace(plan, shape=shape)), gates))
        if on_run is not None:
            on_run(runs[-1])
    return LoadSeries(runs=tuple(runs))


def load_of(shape: Shape) -> str:
    """Return the load alone, as people say it: `4 users`, `12.5 requests/s`."""
    if isinstance(shape, OpenLoop):
        return f"{shape.rate_rps:g} requests/s"
    return f"{shape.users} user{'' if shape.users == 1 else 's'}"


def run_name(number: int, shape: Shape) -> Path:
    """Return the folder of a run, below that of the series: `runs/03-12.5rps`; number 0 is a search's first look."""
    load = f"{shape.rate_rps:g}rps" if isinstance(shape, OpenLoop) else f"{shape.users}users"
    return Path("runs") / f"{number:02d}-{load}"


def forget_series(directory: Path, *, keep: Path | None = None) -> None:
    """Remove what an earlier series of runs left in a folder, so that it does not lie beside a report of others.

    Only files of ours in folders named like ours are touched; nothing if `keep`, a file somebody compares with, is
    one of them. Raises UsageError if they cannot be removed.
    """
    if keep is not None and keep.resolve().is_relative_to((directory / "runs").resolve()):
        return
    runs = [path for path in (directory / "runs").glob("*") if _RUN_FOLDER.fullmatch(path.name) and path.is_dir()]
    try:
        for file in (directory / "series.csv", *(run / name for run in runs for name in _RUN_FILES)):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(str(directory), "cannot be written to", evidence=str(error), hint="choose another") from error
    for folder in (*runs, directory / "runs"):
        with contextlib.suppress(OSError):  # there is something else in it, or it is not there
            folder.rmdir()
