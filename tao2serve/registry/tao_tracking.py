"""What a TAO run must know to be tracked in ClearML, and to have its models uploaded there."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from tao2serve.errors import UsageError
from tao2serve.registry.configuration import ClearMLConfiguration, read_configuration

__all__ = ["OUTPUT_VARIABLE", "TaoTracking", "tao_tracking"]

OUTPUT_VARIABLE: Final = "CLEARML_DEFAULT_OUTPUT_URI"
# TAO's hook gives no output_uri, so that without the variable models are registered by their path in the container.
_PASSED_ON: Final = ("CLEARML_WEB_HOST", "CLEARML_API_HOST_VERIFY_CERT")
_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaoTracking:
    """ClearML as TAO's container is told of it: `variables` are for its environment, some of them secrets."""

    api: str
    origin: str  # where it is configured
    output_uri: str  # where models are uploaded
    variables: tuple[tuple[str, str], ...] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    verify: bool = True

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine's own network reaches it: a container has a loopback of its own."""
        return any(_is_loopback(url) for url in (self.api, self.output_uri))

    def trouble(self) -> tuple[str, str]:
        """Ask the server to take the credentials; return what is wrong and what was seen, "" for nothing."""
        import httpx

        values = dict(self.variables)
        auth = (values["CLEARML_API_ACCESS_KEY"], values["CLEARML_API_SECRET_KEY"])
        try:
            answer = httpx.post(f"{self.api}/auth.login", json={}, auth=auth, timeout=_LIMIT_S, verify=self.verify)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{self.api} cannot be reached", str(error) or type(error).__name__
        if answer.status_code != httpx.codes.OK:
            return f"{self.api} refuses the credentials", f"HTTP {answer.status_code}"
        return "", ""


def tao_tracking(output_uri: str = "") -> TaoTracking | None:
    """Return what is configured here, None if nothing is; models go to `output_uri`, else where ClearML is told to
    put them, else to its file server. Raises UsageError for a clearml.conf that cannot be read."""
    try:
        configured = read_configuration()
        output = output_uri or os.environ.get(OUTPUT_VARIABLE, "") or _default_output(configured)
    except (ValueError, OSError, ImportError) as error:
        raise UsageError("clearml.conf", "cannot be read", evidence=str(error), hint="clearml-init") from error
    if configured is None or not (configured.access_key and configured.secret_key):
        return None
    passed_on = ((name, os.environ[name]) for name in _PASSED_ON if os.environ.get(name))
    return TaoTracking(
        api=configured.api,
        origin=configured.origin,
        output_uri=output,
        variables=(
            ("CLEARML_API_HOST", configured.api),
            ("CLEARML_FILES_HOST", configured.files),
            ("CLEARML_API_ACCESS_KEY", configured.access_key),
            ("CLEARML_API_SECRET_KEY", configured.secret_key),
            (OUTPUT_VARIABLE, output),
            *passed_on,
        ),
        secrets=(configured.access_key, configured.secret_key),
        verify=configured.verify,
    )


def _default_output(configured: ClearMLConfiguration | None) -> str:
    if configured is None:
        return ""
    if configured.origin != "environment":
        from clearml.config import config_obj

        named = config_obj.get("sdk.development.default_output_uri", None)
        if isinstance(named, str) and named:
            return named
    return configured.files


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
