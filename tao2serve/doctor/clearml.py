"""ClearML, asked by plain HTTP: the SDK would try for ever, and takes seconds to import."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from tao2serve.config import Settings
from tao2serve.doctor.check import Check, Examination
from tao2serve.doctor.known import Known, ServiceSays
from tao2serve.registry.configuration import ClearMLConfiguration, read_configuration

if TYPE_CHECKING:
    import httpx

__all__ = ["CLEARML_LIMIT_S", "clearml_examination"]

GROUP: Final = "ClearML"
CLEARML_LIMIT_S: Final = 25.0  # the SDK, which reads clearml.conf, takes some seconds to import
_ONE_CALL_S: Final = 4.0
_VERSION: Final = "v2.23"
_CONTENT: Final = b"tao2serve doctor: may be removed\n"


def clearml_examination(settings: Settings, known: Known) -> Examination:
    """Say whether ClearML is configured, answers, takes our credentials and a file, and serves."""

    def run() -> Iterator[Check]:
        try:
            yield from _clearml(settings, known)
        finally:
            known.say(ServiceSays())  # nobody waits longer, whatever came

    return Examination(group=GROUP, name="configuration", run=run, limit_s=CLEARML_LIMIT_S)


def _clearml(settings: Settings, known: Known) -> Iterator[Check]:
    import httpx

    try:
        configured = read_configuration()
    except (ValueError, OSError, ImportError) as error:
        yield _check("configuration", "wrong", "clearml.conf cannot be read", str(error), "clearml-init")
        return
    if configured is None:
        yield _check(
            "configuration",
            "missing",
            "not configured: neither CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY nor a clearml.conf",
            remedy='clearml-init, or the sandbox: tao2serve sandbox up && eval "$(tao2serve sandbox env)"',
        )
        return
    known.secrets += [configured.access_key, configured.secret_key]
    yield _check("configuration", "ok", f"from {configured.origin}")
    with httpx.Client(timeout=_ONE_CALL_S, verify=configured.verify) as client:
        reached = _server(client, configured)
        yield reached
        if reached.status != "ok":
            return
        login, token = _login(client, configured)
        yield login
        if not token:
            return
        known.secrets.append(token)
        client.headers["Authorization"] = f"Bearer {token}"
        check, says = _service(client, configured, settings.service)
        known.say(says)  # the others need not wait for the file server
        yield check
        yield _files(client, configured)


def _server(client: httpx.Client, configured: ClearMLConfiguration) -> Check:
    import httpx

    try:
        client.get(f"{configured.api}/debug.ping")
    except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
        return _check(
            "server", "wrong", f"{configured.api} accepts connections, but has not answered for {_ONE_CALL_S:g} s",
            str(error) or type(error).__name__,
            "start it anew; for the sandbox: tao2serve sandbox down && tao2serve sandbox up",
        )  # fmt: skip
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _check(
            "server", "wrong", f"{configured.api} cannot be reached", str(error) or type(error).__name__,
            "check CLEARML_API_HOST or clearml.conf; for the sandbox: tao2serve sandbox status",
        )  # fmt: skip
    return _check("server", "ok", f"{configured.api} answers")


def _login(client: httpx.Client, configured: ClearMLConfiguration) -> tuple[Check, str]:
    """Return the check, and the session's token, "" if there is none."""
    import httpx

    remedy = "make new credentials in ClearML's web app, Settings > Workspace, then: clearml-init"
    try:
        response = client.post(
            f"{configured.api}/auth.login", json={}, auth=(configured.access_key, configured.secret_key)
        )
        document = response.json()
        token = document.get("data", {}).get("token", "")
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        fact = f"{configured.api} does not answer as ClearML's API does"
        return _check("credentials", "wrong", fact, type(error).__name__, "check CLEARML_API_HOST"), ""
    if response.status_code != 200 or not isinstance(token, str) or not token:
        return _check("credentials", "wrong", "are refused", _reason(document), remedy), ""
    version = document.get("data", {}).get("server_version") or ""
    return _check("credentials", "ok", "are taken", f"server {version}" if version else ""), token


def _service(client: httpx.Client, configured: ClearMLConfiguration, named: str) -> tuple[Check, ServiceSays]:
    """Return the check of the current serving service, and what it says of itself."""
    import httpx

    wanted: dict[str, Any] = {"type": ["service"], "system_tags": ["serving-control-plane"]}
    fields = ["id", "name", "status", "hyperparams.General"]
    try:
        found = _call(client, configured, "tasks.get_all", {
            **wanted, "status": ["created", "in_progress"], "only_fields": fields,
        })["tasks"]  # fmt: skip
        if named and named not in [task["id"] for task in found]:
            found = _call(client, configured, "tasks.get_all", {"id": [named], "only_fields": fields})["tasks"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return _check("serving service", "wrong", "could not be asked for", str(error)[:300]), ServiceSays()
    running = ", ".join(f"{task.get('name', '')} ({task['id']})" for task in found)
    if named:
        found = [task for task in found if task["id"] == named]
        if not found:
            fact = f"{named} does not exist"
            return _check(
                "serving service", "wrong", fact, remedy="unset TAO2SERVE_SERVICE, or name another: --service ID"
            ), ServiceSays()
    if not found:
        remedy = "clearml-serving create --name detectors"
        return _check("serving service", "missing", "there is none", remedy=remedy), ServiceSays()
    if len(found) > 1:
        fact = f"{len(found)} run, and none is named"
        return _check("serving service", "missing", fact, running, "export TAO2SERVE_SERVICE=ID"), ServiceSays()
    task = found[0]
    return _check("serving service", "ok", f"{task.get('name', '')} ({task['id']})", task.get("status", "")), _says(
        task
    )


def _says(task: Mapping[str, Any]) -> ServiceSays:
    general = (task.get("hyperparams") or {}).get("General") or {}

    def value(name: str) -> str:
        entry = general.get(name)
        said = entry.get("value") if isinstance(entry, Mapping) else None
        return str(said) if said and said != "None" else ""

    return ServiceSays(triton_grpc=value("triton_grpc_server"), serving_base_url=value("serving_base_url"))


def _files(client: httpx.Client, configured: ClearMLConfiguration) -> Check:
    """Store a file of 33 bytes, read it, and remove it again."""
    import httpx

    if not configured.files.startswith(("http://", "https://")):
        return _check("file server", "skipped", f"{configured.files or 'none'} is no file server of ClearML")
    path = f"tao2serve-doctor/{secrets.token_hex(8)}.txt"
    remedy = "check CLEARML_FILES_HOST or clearml.conf, and the disk of that server"
    try:
        stored = client.post(f"{configured.files}/", files={path: ("probe.txt", _CONTENT, "text/plain")})
        if stored.status_code != 200:
            fact = f"{configured.files} takes no file: it answered {stored.status_code}"
            return _check("file server", "wrong", fact, remedy=remedy)
        got = client.get(f"{configured.files}/{path}")
        removed = client.delete(f"{configured.files}/{path}").status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fact = f"{configured.files} cannot be reached"
        return _check("file server", "wrong", fact, str(error) or type(error).__name__, remedy)
    if got.status_code != 200 or got.content != _CONTENT:
        fact = f"{configured.files} does not give back what it stored: it answered {got.status_code}"
        return _check("file server", "wrong", fact, path, remedy)
    return _check(
        "file server", "ok", f"{configured.files} stores and gives back", "" if removed else f"{path} stays there"
    )


def _call(client: httpx.Client, configured: ClearMLConfiguration, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    response = client.post(f"{configured.api}/{_VERSION}/{name}", json=dict(body))
    document = response.json()
    if response.status_code != 200:
        raise ValueError(f"{name}: {_reason(document)}")
    answer: dict[str, Any] = document["data"]
    return answer


def _reason(document: Any) -> str:
    meta = document.get("meta") if isinstance(document, dict) else None
    return " ".join(str(meta.get("result_msg", "")).split())[:300] if isinstance(meta, dict) else ""


def _check(name: str, status: Any, fact: str, evidence: str = "", remedy: str = "") -> Check:
    return Check(group=GROUP, name=name, status=status, fact=fact, evidence=evidence, remedy=remedy)
