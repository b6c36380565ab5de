"""The `tritonserver` that ClearML Serving's controller finds on PATH: the real one, told where it is.

The controller knows nothing of the wheel's folders, of loopback, or of ports other than its own; and it writes its
polling interval as a float, of which Triton 2.51 reads the whole seconds: below 1 it would never look again.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tao2serve.identity import process_identity
from tao2serve.sandbox.state import write_json

__all__ = ["Shim", "triton_arguments", "write_shim"]

POLL = "--repository-poll-secs="
PORT = "--metrics-port="
NAME = "tritonserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shim:
    """What to run, with which options besides the caller's, and where to write which process it is."""

    binary: str
    options: tuple[str, ...]
    record: str


def write_shim(shim: Shim, folder: Path) -> None:
    """Put a program `tritonserver` into the folder, for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "shim.json"
    settings.write_text(json.dumps(asdict(shim), indent=2), encoding="utf-8")
    program = folder / NAME
    words = (sys.executable, "-m", "tao2serve.sandbox.triton_shim", str(settings))
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)


def triton_arguments(given: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    """Return the controller's options as Triton takes them, and ours; the metrics port is ours alone."""
    kept = [option for option in given if not option.startswith(PORT)]
    return (*(_whole_seconds(option) for option in kept), *options)


def _whole_seconds(option: str) -> str:
    return f"{POLL}{max(1, int(float(option.removeprefix(POLL))))}" if option.startswith(POLL) else option


def main(settings: Path, given: Sequence[str]) -> None:
    """Become the real Triton; its process is recorded first, for who must end it when the controller is gone."""
    shim = Shim(**json.loads(settings.read_text(encoding="utf-8")))
    pid = os.getpid()
    write_json({"name": "triton", "pid": pid, "identity": process_identity(pid)}, Path(shim.record))
    os.execv(shim.binary, (NAME, *triton_arguments(given, shim.options)))  # noqa: S606 - the very process is recorded


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
