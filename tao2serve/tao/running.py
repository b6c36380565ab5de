"""A planned run of TAO, carried out: private files written, followed line by line, and judged by what it left.

TAO's own exit codes say too little: the launcher's is 0 whatever fails inside, and TAO's training ends with 0 when it
refuses its spec. So the code comes from our script in the container, and TAO's status.json must say SUCCESS if the
run wrote one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tao2serve.errors import InputError, ServiceError, ToolError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.tao import container_entry
from tao2serve.tao.child import ChildOutcome, ChildRequest, run_child
from tao2serve.tao.launcher_failures import explain_failure
from tao2serve.tao.mounts import write_mounts
from tao2serve.tao.place import ENTRY, Place, TaoPlan, plan_run
from tao2serve.tao.status import read_status
from tao2serve.tao.subtask import Subtask

__all__ = ["RunRequest", "child_environment", "planned", "run_tao"]

# Inherited, these would have the launcher load our packages, or put all variables on Docker's command line.
_DROPPED: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "CI_PROJECT_DIR"})
_PREFIX: Final = "tao2serve-tao-"
_REMOVAL_LIMIT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One subtask, where it runs and what it may not show; `results` is the folder that TAO's status.json lies in."""

    subtask: Subtask
    place: Place
    results: Path
    log: Path
    key: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    tracked: bool = True  # else ClearML's variables of this process are not the child's either
    timeout_s: float = float("inf")


def planned(request: RunRequest) -> TaoPlan:
    """Return what `run_tao` would do, of a folder that it would make; nothing is written."""
    folder = Path(tempfile.gettempdir()).resolve() / f"{_PREFIX}XXXXXXXX"
    return plan_run(
        request.subtask, request.place, results=request.results, folder=folder, has_key=bool(request.key),
        name=f"{_name(request.subtask)}-XXXXXXXX",
    )  # fmt: skip


def run_tao(request: RunRequest, *, on_news: Callable[[str], None]) -> ChildOutcome:
    """Run the subtask and return when it succeeded; `results`, a folder that exists, then holds what it wrote.

    `on_news` is told each line of output. Raises ToolError with the lines that tell why it failed; the whole output,
    without key and secrets, is in the log. Raises ServiceError if another run writes into `results`.
    """
    before = _signature(request.results)
    with (
        _claimed(request.results) as claim,
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name,
    ):
        private = Path(name).resolve()  # mode 0700
        plan = plan_run(
            request.subtask, request.place, results=request.results, folder=private, has_key=bool(request.key),
            name=f"{_name(request.subtask)}-{secrets.token_hex(4)}",
        )  # fmt: skip
        _write(plan, request.key)

        def heard(line: str) -> None:
            # What holds secrets is of no use once our script runs, and would stay if this process were killed.
            if (private / "status.json").exists():
                (private / "mounts.json").unlink(missing_ok=True)
            on_news(line)

        try:
            with _container_ended(plan):
                outcome = run_child(_child(plan, request, claim), on_line=heard)
            code = _status(private)
        finally:
            (private / "key").unlink(missing_ok=True)  # our script removed it, if it came to run
    title = request.subtask.title
    if code != 0:
        raise explain_failure(outcome, code=code, subject=title)
    if (said := _failure(request.results, before)) is not None:
        error = explain_failure(outcome, code=code, subject=title)
        if "exit code" in error.fact:  # nothing it printed is known
            error = ToolError(
                title, f"ended with exit code 0, and its status.json says {said}", evidence=error.evidence,
                hint="the log has all it printed; for a spec: tao2serve spec check SPEC", log=outcome.log,
            )  # fmt: skip
        raise error
    return outcome


def child_environment(ours: Mapping[str, str], *, tracked: bool = True) -> dict[str, str]:
    """Return this process's variables without what must not reach the child, and with ours."""
    dropped = ("TAO2SERVE_",) if tracked else ("TAO2SERVE_", "CLEARML_")  # the key may be among them
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED and not name.startswith(dropped)}
    # Of a clearml.conf in the home folder TAO's hook would take credentials, too.
    nothing = {} if tracked else {"CLEARML_CONFIG_FILE": os.devnull}
    return {**kept, **nothing, "PYTHONUNBUFFERED": "1", **ours}


def _name(subtask: Subtask) -> str:
    return f"tao2serve-{subtask.name.replace('_', '-')}"


def _write(plan: TaoPlan, key: str) -> None:
    document = {
        "words": list(plan.subtask.words(plan.arguments, has_key=False)),
        "module": plan.subtask.module,
        "arguments": list(plan.arguments),
        "gpus": plan.subtask.gpus,
        "amp": plan.subtask.amp,
    }
    (plan.folder / "request.json").write_text(json.dumps(document), encoding="utf-8")
    shutil.copyfile(container_entry.__file__, plan.folder / ENTRY)
    if plan.way == "launcher":
        write_mounts(plan.mounts, plan.folder / "mounts.json")
    if key:
        key_file = plan.folder / "key"
        key_file.touch(mode=0o600)  # private before anything is in it
        key_file.write_text(key, encoding="utf-8")


@contextlib.contextmanager
def _claimed(results: Path) -> Iterator[int]:
    """Let one run at a time write into a folder, and yield what holds it: a child that has it too, when we are killed,
    goes on holding it until it ends."""
    descriptor = os.open(results, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceError(
                str(results), "is being written by another run of TAO",
                evidence="one whose tao2serve was killed goes on until it ends", hint="wait for it, or end it",
            ) from error  # fmt: skip
        yield descriptor
    finally:
        os.close(descriptor)


def _child(plan: TaoPlan, request: RunRequest, claim: int) -> ChildRequest:
    return ChildRequest(
        name=plan.command[0],
        command=plan.command,
        environment=child_environment(plan.environment, tracked=request.tracked),
        folder=plan.folder,
        log=request.log,
        timeout_s=request.timeout_s,
        secrets=(*((request.key,) if request.key else ()), *request.secrets),
        holds=(claim,),
    )


@contextlib.contextmanager
def _container_ended(plan: TaoPlan) -> Iterator[None]:
    """Leave no container behind when the block is cut short: Docker's command may end before its container does."""
    try:
        yield
    except BaseException:
        if plan.container:
            with deferred_interrupts(), contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    [plan.command[0], "rm", "--force", plan.container], env=child_environment({}), check=False,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    timeout=_REMOVAL_LIMIT_S,
                )  # fmt: skip
        raise


def _status(private: Path) -> int | None:
    """Return the exit code our script left, None if it never ran."""
    try:
        code = json.loads((private / "status.json").read_text(encoding="utf-8"))["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, int) else 1


def _signature(results: Path) -> tuple[int, int] | None:
    try:
        found = (results / "status.json").stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _failure(results: Path, before: tuple[int, int] | None) -> str | None:
    """Return what TAO's status.json says of a run that did not succeed; None for success, or if it wrote none."""
    if _signature(results) in (None, before):
        return None
    try:
        status = read_status(results / "status.json")
    except InputError:
        return None
    if status.succeeded:
        return None
    last = status.records[-1]
    return f"{last.status or 'nothing of success'}: {last.message}" if last.message else last.status
