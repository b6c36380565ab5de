"""What a client of the sandbox must know: its credentials, its clearml.conf, its environment variables."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import site
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.state import SandboxState

CLEARML_CONF = """\
# Written by `tao2serve sandbox up` for its own ClearML server.
api {{
    api_server: {api}
    web_server: {api}
    files_server: {files}
    # After the server was away, the inference service looks again at once; with the SDK's pauses up to 120 s later.
    http.retries.backoff_max: 2.0
}}
sdk {{
    storage.cache.default_base_dir: {cache}
    development {{
        # A reporter subprocess inherits pooled sockets and takes seconds to end; a thread does neither.
        report_use_subprocess: false
        default_output_uri: {files}
        detect_with_pip_freeze: false
        store_uncommitted_code_diff: false
        vcs_repo_detect_async: false
    }}
}}
"""

LOOPBACK: Final = ("127.0.0.1", "localhost")
# Variables of `sandbox env` that are not the sandbox's alone.
SHARED: Final = frozenset({"no_proxy", "NO_PROXY", "TAO2SERVE_HOME"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    access_key: str
    secret_key: str


def make_credentials(paths: SandboxPaths) -> Credentials:
    """Return the sandbox's credentials, made once, at random, readable by their owner only."""
    if not paths.credentials.is_file():
        paths.credentials.parent.mkdir(parents=True, exist_ok=True)
        document = {"access_key": secrets.token_hex(10).upper(), "secret_key": secrets.token_urlsafe(36)}
        staged = paths.credentials.with_suffix(".new")
        staged.unlink(missing_ok=True)
        staged.touch(mode=0o600, exist_ok=False)  # private before anything is in it
        staged.write_text(json.dumps(document), encoding="utf-8")
        staged.rename(paths.credentials)
    return Credentials(**json.loads(paths.credentials.read_text(encoding="utf-8")))


def write_clearml_conf(paths: SandboxPaths, state: SandboxState) -> None:
    """Write the clearml.conf of this sandbox; it holds no credentials."""
    text = CLEARML_CONF.format(
        api=json.dumps(state.api_url), files=json.dumps(state.files_url), cache=json.dumps(str(paths.clearml_cache))
    )
    paths.clearml_conf.write_text(text, encoding="utf-8")


def client_environment(paths: SandboxPaths, state: SandboxState) -> dict[str, str]:
    """Return the variables that point any ClearML tool, and tao2serve itself, at this sandbox."""
    credentials = make_credentials(paths)
    direct = _with_loopback(os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "")
    variables = {
        # A proxy for the outside world knows nothing of this machine's loopback.
        "no_proxy": direct,
        "NO_PROXY": direct,
        "CLEARML_API_HOST": state.api_url,
        "CLEARML_WEB_HOST": state.api_url,
        "CLEARML_FILES_HOST": state.files_url,
        "CLEARML_API_ACCESS_KEY": credentials.access_key,
        "CLEARML_API_SECRET_KEY": credentials.secret_key,
        "CLEARML_CONFIG_FILE": str(paths.clearml_conf),
        "CLEARML_CACHE_DIR": str(paths.clearml_cache),
        # All that a deployment asks for, so that no tao2serve.toml of the user's leads it elsewhere.
        "TAO2SERVE_MODEL_REPOSITORY": str(paths.repository),
        "TAO2SERVE_MANAGED": "true" if state.managed else "false",
        "TAO2SERVE_SERVING_BASE_URL": state.serving_url,
        "TAO2SERVE_TRITON_GRPC": state.triton_grpc,
        "TAO2SERVE_HOME": str(paths.home),
    }
    if state.service_id:
        variables["CLEARML_SERVING_TASK_ID"] = variables["TAO2SERVE_SERVICE"] = state.service_id
    return variables


def left_in(environment: Mapping[str, str], paths: SandboxPaths, state: SandboxState) -> tuple[str, ...]:
    """Return by name what `sandbox env` of this sandbox has set there, and nobody needs when it is down.

    Nothing if that environment points at another ClearML server. TAO2SERVE_HOME and the exceptions of a proxy are
    never among them: the user may have had them before, and they do no harm.
    """
    if environment.get("CLEARML_API_HOST") != state.api_url:
        return ()
    ours = client_environment(paths, state).items()
    return tuple(sorted(name for name, value in ours if name not in SHARED and environment.get(name) == value))


def _with_loopback(exceptions: str) -> str:
    """Add this machine's loopback to the exceptions of a proxy, where it is not among them already."""
    given = [entry.strip() for entry in exceptions.split(",") if entry.strip()]
    return ",".join([*given, *(host for host in LOOPBACK if host not in given)])


def shell_exports(variables: Mapping[str, str]) -> str:
    """Return lines for `eval "$(tao2serve sandbox env)"`."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items()))


def child_environment(paths: SandboxPaths, state: SandboxState) -> dict[str, str]:
    """Return the whole environment of a sandbox process: the caller's, less its own ClearML settings, plus ours."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TRAINS_", "TAO2SERVE_"))
    }
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if any(found):  # sandbox processes run in another folder, where relative entries would lead elsewhere
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in found if entry)
    ours = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "TMPDIR": str(paths.temporary),  # the SDK leaves lock files and packages in it
        "HOME": str(paths.temporary),  # and a session file in this one
        "PYTHONUSERBASE": site.getuserbase(),  # which HOME would move: packages may be installed there
    }
    return {**kept, **client_environment(paths, state), **ours}
