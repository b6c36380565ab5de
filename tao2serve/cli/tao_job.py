"""One run of TAO from the command line: looked at first, followed live, told at the end."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tao2serve.cli.output import InterruptionError, plain, print_json, print_text
from tao2serve.cli.tao_options import Common, Prepared, prepare, shown_value, tracking_checks
from tao2serve.errors import InputError, ToolError, UsageError

if TYPE_CHECKING:
    from tao2serve.tao.place import TaoPlan
    from tao2serve.tao.preflight import PreflightCheck
    from tao2serve.tao.subtask import Group, Subtask

__all__ = [
    "checks_for",
    "live",
    "plan_document",
    "plan_text",
    "require_file",
    "require_name",
    "require_no_key",
    "require_no_training",
    "require_ready",
    "run_one",
    "shown_checks",
]

FILE_NAME: Final = re.compile(r"\w[\w.-]*")  # a first `-` would be an option to TAO


def run_one(
    subtask: Subtask,
    common: Common,
    *,
    results: Path,
    output: Path,
    spec: Path | None = None,
    models: Sequence[Path] = (),
    trains: bool = False,
    checked: Path | None = None,
) -> None:
    """Carry out one subtask, or show what it would be; `output` is the file it leaves.

    `checked` is a spec with the content that `spec` will have: it is written there once nothing is in the way.
    """
    from tao2serve.tao.running import planned, run_tao

    seen = checked or spec
    # The spec of a retraining names the pruned model, which no argument does.
    prepared = prepare(common, spec_to_track=seen if trains else None).showing(*models)
    request = prepared.request(subtask, results=results)
    plan = planned(request)
    checks = checks_for(
        prepared, common, group=subtask.group, specs=(seen,) if seen else (), models=models, trains=trains
    )
    if common.dry_run:
        document = {"outcome": "planned", **plan_document(plan, prepared), "preflight": [asdict(one) for one in checks]}
        _show(document, [*shown_checks(checks), *plan_text(plan, prepared)], as_json=common.json_output)
        return
    require_ready(checks)
    for folder in (results, output.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if checked is not None and spec is not None:
        shutil.copyfile(checked, spec)
    start = time.monotonic()
    try:
        outcome = run_tao(request, on_news=live)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"step: {subtask.title}")
        raise InterruptionError(interrupt) from interrupt
    seconds = time.monotonic() - start
    if not output.is_file():
        raise ToolError(
            subtask.title, "succeeded, and did not leave its file", evidence=str(output),
            hint="the log has all it printed", log=outcome.log,
        )  # fmt: skip
    precision = _precision(outcome.log)
    document = {
        "outcome": "ok",
        "subtask": subtask.name,
        "output": str(output),
        "results": str(results),
        "log": str(outcome.log),
        "seconds": round(seconds, 1),
        "mean_average_precision": precision,
    }
    lines = [f"done in {seconds:.0f} s: {output}", f"log:  {outcome.log}"]
    if precision is not None:
        lines.insert(1, f"mAP:  {precision:.4f}")
    _show(document, lines, as_json=common.json_output)


def _show(document: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_text("\n".join(lines))


def _precision(log: Path) -> float | None:
    from tao2serve.tao.console import read_console

    found = read_console(log.read_text(encoding="utf-8", errors="replace"))
    return found[-1].mean_average_precision if found else None


def live(line: str) -> None:
    """Show a line of TAO's console as it comes."""
    sys.stderr.write(plain(line) + "\n")
    sys.stderr.flush()


def checks_for(
    prepared: Prepared,
    common: Common,
    *,
    group: Group,
    specs: Sequence[Path],
    models: Sequence[Path],
    trains: bool,
    expected: Sequence[str] = (),
) -> tuple[PreflightCheck, ...]:
    """Look at what the run needs; with --skip-preflight at nothing."""
    from tao2serve.tao.preflight import check_key, check_machine, check_paths, check_spec_file

    def looked_at() -> Iterator[PreflightCheck]:
        yield from check_machine(prepared.place, group)
        yield check_key(prepared.key, models)
        for spec in specs:
            yield check_spec_file(spec)
            if group == "model":
                yield from check_paths(spec, prepared.place, expected=expected)
        if trains:
            yield from tracking_checks(prepared, specs[0])

    return () if common.skip_preflight else tuple(looked_at())


def shown_checks(checks: Sequence[PreflightCheck]) -> Iterator[str]:
    """Yield the checks as `doctor` shows its own."""
    for check in checks:
        yield f"  {check.status:<8} {check.name}: {check.fact}"
        if check.evidence and check.status != "ok":
            yield f"           seen: {check.evidence}"
        if check.remedy:
            yield f"           try:  {check.remedy}"


def require_ready(checks: Sequence[PreflightCheck]) -> None:
    """Show the checks on stderr; raise ToolError if one of them would end the run."""
    for line in shown_checks(checks):
        live(line)
    wrong = [check for check in checks if check.status == "wrong"]
    if not wrong:
        return
    facts = "\n".join(f"{check.name}: {check.fact}" for check in wrong)
    error = ToolError(
        "TAO", "cannot run here", evidence=facts,
        hint="; ".join(dict.fromkeys(check.remedy for check in wrong if check.remedy)) + "; or --skip-preflight",
    )  # fmt: skip
    error.details = {"preflight": [asdict(check) for check in checks]}
    raise error


def plan_document(plan: TaoPlan, prepared: Prepared) -> dict[str, Any]:
    """Return a plan for a program to read; secrets are masked."""
    return {
        "way": plan.way,
        "image": plan.image or None,
        "command": list(plan.command),
        "inside": list(plan.inside),
        "mounts": [{"source": str(mount.source), "destination": str(mount.destination)} for mount in plan.mounts.mounts]
        if plan.way != "inside"
        else [],
        "docker_options": json.loads(plan.mounts.docker_options) if plan.way != "inside" else {},
        "environment": _masked(plan, prepared),
    }


def _masked(plan: TaoPlan, prepared: Prepared) -> dict[str, str]:
    variables = dict(plan.mounts.environment) if plan.way == "launcher" else dict(plan.environment)
    return {name: shown_value(name, value, prepared.secrets) for name, value in variables.items()}


def plan_text(plan: TaoPlan, prepared: Prepared) -> Iterator[str]:
    """Yield a plan as lines: the command that runs here, what it runs there, and what it sees."""
    ahead = [f"{name}={value}" for name, value in plan.environment.items()] if plan.way == "launcher" else []
    yield f"command   {shlex.join([*ahead, *plan.command])}"
    yield f"runs      {shlex.join(plan.inside)}" + (f"   in {plan.image}" if plan.image else "")
    if plan.way != "inside":
        for mount in plan.mounts.mounts:
            yield f"mount     {mount.source} as {mount.destination}"
        for name, value in json.loads(plan.mounts.docker_options).items():
            yield f"option    {name}: {value}"
    for name, value in _masked(plan, prepared).items():
        yield f"variable  {name}={value}"


def require_file(path: Path) -> None:
    """Raise InputError for what is no file."""
    if not path.is_file():
        raise InputError(str(path), "is not a file" if path.exists() else "does not exist")


def require_name(name: str) -> None:
    """Refuse what is no name of a file before hours of training end in it."""
    if not FILE_NAME.fullmatch(name):
        raise UsageError(
            "--name", f"is {name!r}", hint="give a file's name of letters, digits and _.-, without folder and ending"
        )


def require_no_key(more: Sequence[str]) -> None:
    """Refuse a key on the command line, where everyone who may list processes reads it."""
    if any(word in ("-k", "--key") or word.startswith("--key=") for word in more):
        raise UsageError("--key", "would be in the process list", hint="put the key into a file: --key-file FILE")


def require_no_training(option: str, folder: Path) -> None:
    """Refuse a folder in which a training's status.json lies: each subtask writes one, and `models` chooses by that."""
    from tao2serve.tao.status import read_status

    status = folder / "status.json"
    if not status.is_file():
        return
    if (folder / "weights").is_dir() or any(record.epoch is not None for record in read_status(status).records):
        raise UsageError(
            option, f"is in {folder}, where a training's status.json lies, which TAO would write anew",
            hint="give another folder: that status.json is what `models` and `adopt` know the training by",
        )  # fmt: skip
