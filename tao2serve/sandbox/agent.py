"""ClearML's own agent for the sandbox: the real clearml-agent, in an environment of its own, on one queue."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tao2serve.errors import ToolError
from tao2serve.sandbox.environment import Credentials
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.process import tail
from tao2serve.sandbox.state import SandboxState

__all__ = [
    "AGENT_VERSION",
    "QUEUE",
    "agent_command",
    "agent_environment",
    "clean",
    "is_made",
    "is_registered",
    "make_environment",
    "worker_name",
]

AGENT_VERSION: Final = "3.0.3"
QUEUE: Final = "default"
_INSTALL_LIMIT_S: Final = 900
_ASK_LIMIT_S: Final = 3.0


def make_environment(paths: SandboxPaths, on_step: Callable[[str], None]) -> Path:
    """Return the agent's program; its environment is made once, and made anew if that was cut off.

    clearml-agent wants another `requests` than the rest of an installation may have, and brings virtualenv. Raises
    ToolError with pip's last words if it cannot be made.
    """
    program = _program(paths)
    if is_made(paths):
        return program
    on_step(f"an environment for clearml-agent {AGENT_VERSION}, once")
    folder = paths.agent_environment
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = paths.log("agent-environment")
    log.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    _run([sys.executable, "-m", "venv", str(folder)], log)
    on_step(f"clearml-agent {AGENT_VERSION} from the package index, once")
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    _run([*pip, f"clearml-agent=={AGENT_VERSION}"], log)
    _mark(paths).touch()
    return program


def is_made(paths: SandboxPaths) -> bool:
    """Whether the agent's environment is there, whole, and of this Python."""
    python = paths.agent_environment / "bin" / "python"
    return _mark(paths).is_file() and _program(paths).is_file() and python.exists()


def agent_command(paths: SandboxPaths) -> tuple[str, ...]:
    """Return the daemon's command line; what is secret is in its environment."""
    return (str(_program(paths)), "daemon", "--foreground", "--queue", QUEUE)


def agent_environment(paths: SandboxPaths, environment: dict[str, str]) -> dict[str, str]:
    """Return the daemon's environment: a child's of the sandbox, and that its tasks run in this very installation.

    The agent writes its whole configuration, credentials included, into its temporary folder, so it has one of its own,
    which its owner alone may enter, and which is removed with it.
    """
    paths.agent_temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        **environment,
        "TMPDIR": str(paths.agent_temporary),
        "HOME": str(paths.agent_temporary),
        "CLEARML_WORKER_ID": worker_name(),
        "CLEARML_AGENT_QUEUE_POLL_FREQ_SEC": "1",
        # Tasks start in seconds: no environment is made for them, they run where tao2serve is installed.
        "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL": "1",
        "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL": sys.executable,
    }


def worker_name() -> str:
    """Return the name under which the agent registers."""
    return f"{socket.gethostname()}:sandbox"


def is_registered(state: SandboxState, credentials: Credentials) -> Callable[[], str]:
    """Return a question: "" once the server lists the agent, else why it does not."""

    def ask() -> str:
        import httpx

        try:
            answer = httpx.post(
                f"{state.api_url}/workers.get_all",
                json={},
                auth=(credentials.access_key, credentials.secret_key),
                timeout=_ASK_LIMIT_S,
                trust_env=False,
            )
            names = [worker["id"] for worker in answer.json()["data"]["workers"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return f"the server did not list its workers: {type(error).__name__}"
        return "" if worker_name() in names else "it has not registered"

    return ask


def clean(paths: SandboxPaths) -> None:
    """Remove what a daemon leaves: configurations with credentials, tasks' folders."""
    shutil.rmtree(paths.agent_temporary, ignore_errors=True)


def _program(paths: SandboxPaths) -> Path:
    return paths.agent_environment / "bin" / "clearml-agent"


def _mark(paths: SandboxPaths) -> Path:
    """A file that is written last; it names the Python, for an environment points at the one it was made with."""
    return paths.agent_environment / f"made-{sys.version_info.major}.{sys.version_info.minor}"


def _run(command: list[str], log: Path) -> None:
    hidden = ("PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    reason = ""
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                timeout=_INSTALL_LIMIT_S, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return
        except subprocess.TimeoutExpired:
            reason = f"it took longer than {_INSTALL_LIMIT_S} s\n"
        except OSError as error:
            reason = f"{error}\n"
    raise ToolError(
        "environment of clearml-agent",
        "could not be made",
        evidence=reason + tail(log),
        hint="mend what the log says (a package index must be reachable), then run the command again",
        log=log,
    )
