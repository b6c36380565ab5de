"""The Triton and the inference service that deployments go to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tao2serve.config import Settings
from tao2serve.doctor.check import Check, Examination
from tao2serve.doctor.clearml import CLEARML_LIMIT_S
from tao2serve.doctor.known import Known
from tao2serve.errors import UsageError
from tao2serve.triton.repository import check_location

__all__ = ["server_examinations"]

TRITON: Final = "Triton"
SERVING: Final = "serving"
_ONE_CALL_S: Final = 4.0
_LIMIT_S: Final = CLEARML_LIMIT_S + 10.0
_NOBODY: Final = "tao2serve_doctor_asks_for_no_model"


def server_examinations(settings: Settings, known: Known) -> tuple[Examination, ...]:
    return (
        Examination(group=TRITON, name="server", run=lambda: _triton(settings, known), limit_s=_LIMIT_S),
        Examination(group=SERVING, name="inference service", run=lambda: _serving(settings, known), limit_s=_LIMIT_S),
    )


def _triton(settings: Settings, known: Known) -> Iterator[Check]:
    repository = None if settings.managed else settings.model_repository  # the controller has a folder of its own
    if not settings.managed:
        yield _repository(repository)
    address = settings.triton_grpc or known.service(limit_s=CLEARML_LIMIT_S).triton_grpc
    if not address:
        yield _triton_check(
            "server", "missing", "no address is configured", remedy="export TAO2SERVE_TRITON_GRPC=HOST:8001"
        )
        return
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    client: Any = InferenceServerClient(address)
    try:
        try:
            live = client.is_server_live(client_timeout=_ONE_CALL_S)
            ready = client.is_server_ready(client_timeout=_ONE_CALL_S)
            version = client.get_server_metadata(client_timeout=_ONE_CALL_S).version
        except InferenceServerException as error:
            yield _triton_check(
                "server", "wrong", f"{address} cannot be reached", _words(error),
                "start it, or mend TAO2SERVE_TRITON_GRPC; for the sandbox: tao2serve sandbox status",
            )  # fmt: skip
            return
        state = "live and ready" if live and ready else "live, and not ready" if live else "not live"
        yield _triton_check(
            "server",
            "ok" if live and ready else "wrong",
            f"{address}, Triton {version}: {state}",
            remedy="" if live and ready else "its log says what it waits for",
        )
        yield _control(client, address, managed=settings.managed)
        if repository is not None:
            yield _same_repository(client, repository)
    finally:
        client.close()


def _control(client: Any, address: str, *, managed: bool) -> Check:
    """Say whether models can be loaded by name: Triton tells no mode, and refuses to unload in any but EXPLICIT.

    Nothing is unloaded: no model has this name.
    """
    from tritonclient.utils import InferenceServerException

    name, refusal = "model control", ""
    try:
        client.unload_model(_NOBODY, client_timeout=_ONE_CALL_S)
    except InferenceServerException as error:
        refusal = _words(error)
        if "not allowed" not in refusal:
            return _triton_check(name, "skipped", "could not be told", refusal)
    if managed and refusal:
        return _triton_check(name, "ok", "it takes no orders, as one that ClearML Serving's controller runs")
    if managed:
        return _triton_check(
            name, "wrong", f"{address} is in EXPLICIT mode: it loads nothing that ClearML Serving's controller brings",
            remedy="mend TAO2SERVE_TRITON_GRPC, or if this Triton is your own: export TAO2SERVE_MANAGED=false",
        )  # fmt: skip
    if refusal:
        return _triton_check(
            name, "wrong", f"{address} is not in EXPLICIT mode: deploy cannot load models", refusal,
            "restart it with: tritonserver --model-control-mode=explicit; if ClearML Serving's controller runs it: "
            "export TAO2SERVE_MANAGED=true",
        )  # fmt: skip
    return _triton_check(name, "ok", "EXPLICIT: models are loaded by name")


def _same_repository(client: Any, repository: Path) -> Check:
    """Compare the folder with what Triton sees in its own: it tells no path."""
    from tritonclient.utils import InferenceServerException

    try:
        index = client.get_model_repository_index(client_timeout=_ONE_CALL_S)
        seen = {model.name for model in index.models}
        here = {entry.name for entry in repository.iterdir() if (entry / "config.pbtxt").is_file()}
    except (InferenceServerException, OSError) as error:
        return _triton_check("repository", "wrong", "could not be compared", str(error)[:300])
    lacking = sorted(here - seen)
    if lacking:
        return _triton_check(
            "repository",
            "wrong",
            f"{repository} is not the folder that this Triton was started with",
            f"it does not see: {', '.join(lacking[:5])}",
            "mend TAO2SERVE_MODEL_REPOSITORY, or start Triton with --model-repository of that folder",
        )
    if not here:
        return _triton_check("repository", "skipped", f"{repository} is empty: nothing to know it by")
    return _triton_check("repository", "ok", f"{repository}: Triton sees its {len(here)} models")


def _repository(repository: Path | None) -> Check:
    name = "repository folder"
    if repository is None:
        return _triton_check(
            name, "missing", "none is configured", remedy="export TAO2SERVE_MODEL_REPOSITORY=DIR   (deploy needs it)"
        )
    if not repository.is_dir():
        remedy = f"mkdir -p {repository}, or mend TAO2SERVE_MODEL_REPOSITORY"
        return _triton_check(name, "wrong", f"{repository} does not exist", remedy=remedy)
    if not os.access(repository, os.W_OK | os.X_OK):
        remedy = "let this user write there, or mend TAO2SERVE_MODEL_REPOSITORY"
        return _triton_check(name, "wrong", f"{repository} cannot be written", remedy=remedy)
    try:
        check_location(repository.absolute(), remedy="choose another: TAO2SERVE_MODEL_REPOSITORY")
    except UsageError as error:
        return _triton_check(name, "wrong", f"{error.subject} {error.fact}", error.evidence, error.hint)
    return _triton_check(name, "ok", f"{repository} can be written")


def _serving(settings: Settings, known: Known) -> Iterator[Check]:
    import httpx

    url = (settings.serving_base_url or known.service(limit_s=CLEARML_LIMIT_S).serving_base_url).rstrip("/")
    name = "inference service"
    if not url:
        yield Check(
            group=SERVING, name=name, status="missing", fact="no URL is configured",
            remedy="export TAO2SERVE_SERVING_BASE_URL=http://HOST:8080/serve",
        )  # fmt: skip
        return
    remedy = "start it, or mend TAO2SERVE_SERVING_BASE_URL; for the sandbox: tao2serve sandbox status"
    try:
        # An endpoint that nobody has: what serves endpoints answers 404 in its own words.
        response = httpx.post(f"{url}/{_NOBODY}", json={}, timeout=_ONE_CALL_S)
        words = str(response.json().get("detail", ""))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield Check(
            group=SERVING, name=name, status="wrong", fact=f"{url} cannot be reached",
            evidence=str(error) or type(error).__name__, remedy=remedy,
        )  # fmt: skip
        return
    except (ValueError, AttributeError):
        words = ""
    if response.status_code == 404 and "endpoint was not found" in words:
        yield Check(group=SERVING, name=name, status="ok", fact=f"{url} answers")
    elif response.status_code == 401:
        yield Check(
            group=SERVING, name=name, status="wrong", fact=f"{url} asks for a key, which tao2serve does not send",
            evidence=words, remedy="name the inference service itself, behind the proxy: TAO2SERVE_SERVING_BASE_URL",
        )  # fmt: skip
    else:
        yield Check(
            group=SERVING, name=name, status="wrong",
            fact=f"{url} is not the inference service of ClearML Serving: it answered {response.status_code}",
            evidence=words[:300], remedy=remedy,
        )  # fmt: skip


def _words(error: Any) -> str:
    return " ".join(str(error.message() or error).split())[:300]


def _triton_check(name: str, status: Any, fact: str, evidence: str = "", remedy: str = "") -> Check:
    return Check(group=TRITON, name=name, status=status, fact=fact, evidence=evidence, remedy=remedy)
