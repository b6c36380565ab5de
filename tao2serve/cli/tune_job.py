"""`loadtest --tune`: its options, and what came of it as a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tao2serve.cli.load_options import Load
from tao2serve.cli.load_text import table
from tao2serve.errors import Tao2ServeError, UsageError

if TYPE_CHECKING:
    from tao2serve.config import Settings
    from tao2serve.deployment.load_report import Deployed
    from tao2serve.loadtest import Gate, LoadPlan
    from tao2serve.steps import Steps
    from tao2serve.tuning.measurement import Measurement
    from tao2serve.tuning.outcome import Outcome
    from tao2serve.tuning.search import Finalist

__all__ = ["TuneJob", "tune_job"]

_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(MiB|GiB|MB|GB|M|G)", re.IGNORECASE)
_UNITS: Final = {"mib": 2**20, "gib": 2**30, "m": 2**20, "g": 2**30, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneJob:
    """What is varied and within which limits, as far as the options say it."""

    values: Mapping[str, tuple[Any, ...]]
    gates: tuple[Gate, ...]
    memory_bytes: int | None
    gpu_memory_bytes: int | None
    blocks: int
    output: Path

    def check(self, images: Path, settings: Settings) -> None:
        """Refuse what can be seen without asking anybody: as `run_tuning` does, before ClearML is asked for names."""
        from tao2serve.loadtest import images_within
        from tao2serve.tuning.run import check_tunable

        check_tunable(settings)
        images_within(images)

    def run(
        self, plan: LoadPlan, load: Load, settings: Settings, steps: Steps, *, deployed: Deployed | None
    ) -> tuple[dict[str, Any], str]:
        """Tune the plan's endpoint, report to ClearML as a load test does, and return document and text."""
        from dataclasses import replace

        from tao2serve.tuning.report import write_outcome
        from tao2serve.tuning.run import Limits, TuneRequest, run_tuning

        request = TuneRequest(
            endpoint=plan.endpoint,
            plan=replace(plan, shape=load.loads[0]),
            limits=Limits(gates=self.gates, memory_bytes=self.memory_bytes, gpu_memory_bytes=self.gpu_memory_bytes),
            values=self.values,
            blocks=self.blocks,
            directory=self.output,
        )
        outcome = run_tuning(request, settings, steps=steps)
        known = {**outcome.serving, **(deployed.environment if deployed else {})}
        outcome = replace(outcome, serving=known, reported_to=deployed.task_id if deployed else None)
        outcome = write_outcome(outcome)
        if deployed is not None and not _tell(deployed, outcome, steps):
            outcome = write_outcome(replace(outcome, reported_to=None))
        return outcome.to_dict(), tuning_text(outcome)


def _tell(deployed: Deployed, outcome: Outcome, steps: Steps) -> bool:
    """Report a tuning to the deployment's ClearML task; return whether ClearML took it."""
    from tao2serve.tuning.report import report_to

    with steps.step("report to ClearML") as step:
        try:
            report_to(deployed, outcome)
        except Tao2ServeError as error:
            step.note(f"not reported: {error}")
            return False
        step.note(f"ClearML task {deployed.task_id}")
    return True


def tune_job(
    *,
    tune: bool,
    load: Load,
    endpoints: Sequence[str],
    gates: Sequence[Gate],
    values: Sequence[str] | None,
    memory_limit: str | None,
    gpu_memory_limit: str | None,
    blocks: int | None,
    output: Path,
    others: dict[str, bool],
) -> TuneJob | None:
    """Return what a tuning is asked for, None if none is; `others` are the options that do not go with it, if given.

    Raises UsageError for options that exclude each other.
    """
    own = {"--try": values, "--memory-limit": memory_limit, "--gpu-memory-limit": gpu_memory_limit, "--blocks": blocks}
    if not tune:
        if given := [name for name, value in own.items() if value]:
            raise UsageError(given[0], "is of a tuning", hint="add: --tune")
        return None
    if excluded := [name for name, is_given in others.items() if is_given]:
        raise UsageError("--tune", f"does not go with {excluded[0]}", hint="leave one of them out")
    if load.kind != "run":
        raise UsageError("--tune", "takes one load", hint="--users N for throughput, or --rate R for latency")
    if len(endpoints) != 1 or "=" in endpoints[0] or "://" in endpoints[0]:
        raise UsageError("--tune", "takes one endpoint, by its name", hint="for example: street, or street/3")
    if blocks is not None and not 2 <= blocks <= 20:
        raise UsageError("--blocks", f"is {blocks}", hint="2 to 20; one alone does not say what is noise")
    from tao2serve.tuning.candidate import parse_values
    from tao2serve.tuning.search import BLOCKS

    return TuneJob(
        values=parse_values(values or ()),
        gates=tuple(gates),
        memory_bytes=_bytes(memory_limit, option="--memory-limit"),
        gpu_memory_bytes=_bytes(gpu_memory_limit, option="--gpu-memory-limit"),
        blocks=BLOCKS if blocks is None else blocks,
        output=output,
    )


def _bytes(text: str | None, *, option: str) -> int | None:
    if text is None:
        return None
    match = _BYTES.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UsageError(option, f"is {text!r}, not a size", hint="for example: 1500MiB, or 2GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def tuning_text(outcome: Outcome) -> str:
    """Return the tables of survey and finals, and what is proposed."""
    tuning = outcome.tuning
    head = ("settings", "answered/s", "p50 ms", "p99 ms", "Triton MiB", "")
    survey = [head, *(_survey_row(found, is_present=found.candidate == tuning.present) for found in tuning.survey)]
    finals = [("finals", *head[1:]), *(_final_row(one) for one in tuning.finals)]
    searched = "all of them" if tuning.is_whole else f"of {tuning.of_grid}, by a local search: it may miss a better one"
    lines = [
        *table(survey),
        f"{len(tuning.survey)} candidates measured, {searched}",
        "",
        *table(finals),
        f"medians of {len(tuning.finals[0].blocks)} blocks in turns",
        "",
        f"proposed    {tuning.proposed or 'nothing'}",
        f"            {tuning.reason}",
    ]
    if outcome.tuned is not None:
        endpoint = outcome.deployed.endpoint.name
        lines.append(f"use it:     tao2serve deploy … --endpoint {endpoint} --tuned {outcome.tuned}")
    return "\n".join(lines)


def _survey_row(found: Measurement, *, is_present: bool) -> tuple[str, ...]:
    words = [*(["present"] if is_present else []), _verdict(found.holds, found.reasons)]
    return (
        str(found.candidate), f"{found.throughput_rps:.1f}", _number(found.p50_ms), _number(found.p99_ms),
        _number(found.memory_bytes, 2**20), "; ".join(filter(None, words)),
    )  # fmt: skip


def _final_row(finalist: Finalist) -> tuple[str, ...]:
    row = finalist.to_dict()
    verdict = _verdict(finalist.holds, [reason for block in finalist.blocks for reason in block.reasons])
    if finalist.is_judged and len(finalist.judged) < len(finalist.blocks):
        count = f"{len(finalist.judged)} of {len(finalist.blocks)} blocks: else the client was saturated"
        verdict = f"{verdict}; {count}" if verdict else count
    return (
        str(finalist.candidate), f"{row['throughput_rps']:.1f}", _number(row["p50_ms"]), _number(row["p99_ms"]),
        _number(row["memory_bytes"], 2**20), verdict,
    )  # fmt: skip


def _verdict(holds: bool, reasons: Sequence[str]) -> str:
    if holds:
        return ""
    return f"does not hold: {reasons[0]}" if reasons else "not judged: the client was saturated"


def _number(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return "-"
    return f"{value / unit:.0f}" if unit > 1 else f"{value:.1f}"
