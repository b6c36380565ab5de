"""The local stack: what it needs, and whether it runs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tao2serve.config import home
from tao2serve.doctor.check import Check, Examination
from tao2serve.doctor.client import extra
from tao2serve.errors import Tao2ServeError, ToolError, UsageError
from tao2serve.sandbox.agent import AGENT_VERSION, QUEUE, worker_name
from tao2serve.sandbox.health import is_free
from tao2serve.sandbox.parts import AGENT
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.process import is_alive
from tao2serve.sandbox.state import SandboxState, read_state
from tao2serve.sandbox.triton_server import check_python_backend
from tao2serve.triton.repository import check_location

__all__ = ["sandbox_examinations"]

GROUP: Final = "sandbox"
_SHARED: Final = Path("/dev/shm")  # noqa: S108 - Triton's place
_LEAST_SHARED_BYTES: Final = 64 * 1024 * 1024  # a python backend takes 1 MB and what its tensors need


def sandbox_examinations() -> tuple[Examination, ...]:
    return (
        Examination(group=GROUP, name="packages", run=_packages),
        Examination(group=GROUP, name="shared memory", run=_shared_memory),
        Examination(group=GROUP, name="running", run=_running),
    )


def _packages() -> Iterator[Check]:
    yield from extra(GROUP, "packages", "sandbox")
    if find_spec("pytriton") is None:
        fact = "not installed" if sys.version_info < (3, 13) else "not made for this Python; 3.11 and 3.12 have it"
        yield Check(
            group=GROUP, name="Triton", status="missing", fact=f"wheel nvidia-pytriton is {fact}",
            remedy="pip install 'tao2serve[sandbox]'",
        )  # fmt: skip
        return
    try:
        check_python_backend()
    except ToolError as error:
        yield Check(
            group=GROUP, name="Triton", status="missing", fact=f"{error.subject} {error.fact}",
            evidence=error.evidence, remedy=error.hint,
        )  # fmt: skip
    else:
        version = metadata.version("nvidia-pytriton")
        yield Check(group=GROUP, name="Triton", status="ok", fact=f"nvidia-pytriton {version}, with its python backend")


def _shared_memory() -> Iterator[Check]:
    if not _SHARED.is_dir():
        yield Check(group=GROUP, name="shared memory", status="missing", fact=f"there is no {_SHARED}")
        return
    free = shutil.disk_usage(_SHARED).free
    enough = free >= _LEAST_SHARED_BYTES
    yield Check(
        group=GROUP,
        name="shared memory",
        status="ok" if enough else "wrong",
        fact=f"{free / 1e6:.0f} MB free in {_SHARED}",
        remedy="" if enough else "remove what ended programs left there; in Docker: --shm-size 1g",
    )


def _running() -> Iterator[Check]:
    paths = SandboxPaths(home())
    try:
        check_location(paths.home, remedy="choose another: export TAO2SERVE_HOME=/var/tmp/tao2serve")
        state = read_state(paths.state)
    except UsageError as error:
        yield Check(
            group=GROUP, name="running", status="missing", fact=f"cannot run: {error.subject} {error.fact}",
            evidence=error.evidence, remedy=error.hint,
        )  # fmt: skip
        return
    except Tao2ServeError as error:
        yield Check(
            group=GROUP, name="running", status="wrong", fact=f"{error.subject} {error.fact}",
            evidence=error.evidence, remedy=error.hint,
        )  # fmt: skip
        return
    if state is None:
        yield Check(group=GROUP, name="running", status="missing", fact="not up", remedy="tao2serve sandbox up")
        yield from _ports(paths)
        return
    down = [record.name for record in state.processes if not is_alive(record)]
    if down or not state.ready:
        yield Check(
            group=GROUP,
            name="running",
            status="wrong",
            fact=f"not all of it is up: {', '.join(down)} ended" if down else "its start was cut off",
            evidence=str(paths.logs),
            remedy="tao2serve sandbox up",
        )
    else:
        yield Check(
            group=GROUP,
            name="running",
            status="ok",
            fact=f"up: {', '.join(record.name for record in state.processes)}",
            evidence=state.serving_url,
        )
    yield _agent(state)


def _agent(state: SandboxState) -> Check:
    record = next((record for record in state.processes if record.name == AGENT), None)
    if record is None:
        return Check(
            group=GROUP, name="agent", status="missing", fact="none runs, so --queue finds no worker there",
            remedy="tao2serve sandbox up --agent",
        )  # fmt: skip
    if not is_alive(record):
        return Check(
            group=GROUP, name="agent", status="wrong", fact=f"clearml-agent {AGENT_VERSION} ended",
            evidence="tao2serve sandbox logs clearml-agent", remedy="tao2serve sandbox up",
        )  # fmt: skip
    fact = f"clearml-agent {AGENT_VERSION} serves queue {QUEUE} as {worker_name()}"
    return Check(group=GROUP, name="agent", status="ok", fact=fact)


def _ports(paths: SandboxPaths) -> Iterator[Check]:
    """A sandbox that was made once keeps its ports, since stored URLs name them."""
    try:
        ports = json.loads(paths.ports.read_text(encoding="utf-8"))
        taken = [str(port) for port in ports.values() if not is_free(int(port))]
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        yield Check(
            group=GROUP, name="ports", status="wrong", fact=f"{paths.ports} cannot be read",
            evidence=type(error).__name__, remedy="tao2serve sandbox down --purge",
        )  # fmt: skip
        return
    yield Check(
        group=GROUP,
        name="ports",
        status="wrong" if taken else "ok",
        fact=f"taken by another program: {', '.join(taken)}" if taken else "free",
        evidence=str(paths.ports) if taken else "",
        remedy="end that program, or begin anew with: tao2serve sandbox down --purge" if taken else "",
    )
