"""Where a command's words go: the result to stdout, everything else to stderr, foreign chatter to a log."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from tao2serve.documents import json_text
from tao2serve.errors import Tao2ServeError, UsageError
from tao2serve.remote.protocol import TELL_VARIABLE
from tao2serve.steps import note_of

__all__ = [
    "INTERRUPTED",
    "InterruptionError",
    "Told",
    "error_document",
    "plain",
    "print_error",
    "print_json",
    "print_text",
    "quiet",
]


INTERRUPTED: Final = 130


class InterruptionError(Tao2ServeError):
    """The end of a command by Ctrl-C, SIGTERM or a closed terminal: in which step, and what is left."""

    exit_code = INTERRUPTED

    def __init__(self, by: BaseException | None = None) -> None:
        super().__init__("tao2serve", "was interrupted", hint="run it again")
        if by is not None:
            self.step, self.aftermath = note_of(by, "step"), note_of(by, "aftermath")


class Told(int):
    """An exit code whose reason the command has printed itself."""


def print_json(document: Mapping[str, Any]) -> None:
    """Write the one JSON document of a `--json` run."""
    sys.stdout.write(json_text(document))
    sys.stdout.flush()


# All but tab and line feed: names and metadata come from files, and must not steer the terminal. Half characters
# (U+D800 to U+DFFF), which names that are not UTF-8 hold, cannot be written at all.
_CONTROL: Final = dict.fromkeys(
    (*range(9), *range(11, 32), *range(127, 160), *range(0xD800, 0xE000)), "\N{REPLACEMENT CHARACTER}"
)


def print_text(text: str) -> None:
    """Write the result of a run without --json; control characters in it are shown as one that does nothing."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def plain(text: str) -> str:
    """Return the text with its control characters shown as one that does nothing."""
    return text.translate(_CONTROL)


def error_document(error: Tao2ServeError) -> dict[str, Any]:
    """Return what `--json` prints for a failure; `step` is there when a step of something longer failed,
    `aftermath` when something was begun, or interrupted."""
    document: dict[str, Any] = {"outcome": "error", "exit_code": error.exit_code, "error": error.to_dict()}
    if error.step:
        document["step"] = error.step
    if error.aftermath:
        document["aftermath"] = error.aftermath
    return {**document, **error.details}


def print_error(error: Tao2ServeError, *, as_json: bool) -> None:
    """Write subject, fact, evidence, hint and log, one a line, to stderr; with `as_json` the document to stdout."""
    _tell_whoever_runs_it(error)
    if as_json:
        print_json(error_document(error))
        return
    interrupted = isinstance(error, InterruptionError)
    lines = ["interrupted" if interrupted else f"error: {error.subject} {error.fact}"]
    if error.step:
        lines.append(f"  step: {error.step}")
    if error.evidence:
        lines.append("  seen: " + error.evidence.replace("\n", "\n        "))
    if error.aftermath and error.aftermath not in error.hint:
        lines.append(f"  then: {error.aftermath}")
    if error.hint and (error.step or not interrupted):
        lines.append(f"  try:  {error.hint}")
    if error.log and not interrupted:
        lines.append(f"  log:  {error.log}")
    sys.stderr.write("\n".join(lines).translate(_CONTROL) + "\n")
    sys.stderr.flush()


def _tell_whoever_runs_it(error: Tao2ServeError) -> None:
    """Write the error's document into the file that a remote run names, for it wants the parts, not the text."""
    named = os.environ.get(TELL_VARIABLE)
    if named:
        Path(named).write_text(json_text(error_document(error)), encoding="utf-8")


@contextlib.contextmanager
def quiet(log: Path, *, remedy: str = "choose another: export TAO2SERVE_HOME=DIR") -> Iterator[IO[str]]:
    """Send what libraries and child processes write to stdout and stderr into `log`; yield the real stderr.

    The ClearML SDK prints to both, and stdout belongs to the command's result. Errors of ours that name no
    log are given this one. Raises UsageError with `remedy`, which says how another folder is chosen, if the log's
    cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        evidence = error.strerror or str(error)
        raise UsageError(str(log.parent), "cannot be written", evidence=evidence, hint=remedy) from error
    sys.stdout.flush()
    sys.stderr.flush()
    kept_out, kept_err = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(kept_err), "w", buffering=1)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        except Tao2ServeError as error:
            sys.stdout.flush()
            sys.stderr.flush()
            if error.log is None and log.stat().st_size:
                error.log = log
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept_out, 1)
            os.dup2(kept_err, 2)
            os.close(kept_out)
            os.close(kept_err)
            with contextlib.suppress(OSError):  # its last words may find nobody listening
                terminal.close()
