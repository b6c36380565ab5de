"""Which ClearML is configured, as the SDK itself would read it, without asking any server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ClearMLConfiguration", "read_configuration"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearMLConfiguration:
    """Addresses and credentials of the ClearML server; the credentials are in no representation of it."""

    api: str
    files: str
    origin: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    verify: bool = True  # whether a server's certificate must be trusted


def read_configuration(environment: Mapping[str, str] = os.environ) -> ClearMLConfiguration | None:
    """Return what is configured, None if nothing is; raises ValueError saying what clearml.conf has wrong.

    The environment alone is read in no time if it says all; else the SDK reads its file, which takes seconds.
    """
    names = ("CLEARML_API_HOST", "CLEARML_FILES_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY")
    api, files, access_key, secret_key = (environment.get(name, "") for name in names)
    if api and files and access_key and secret_key:
        return ClearMLConfiguration(
            api=api.rstrip("/"), files=files.rstrip("/"), origin="environment", access_key=access_key,
            secret_key=secret_key, verify=_verifies(environment),
        )  # fmt: skip
    conf = Path(environment.get("CLEARML_CONFIG_FILE") or Path.home() / "clearml.conf").expanduser()
    if not conf.is_file() and not (access_key and secret_key):
        return None
    return _by_sdk(conf if conf.is_file() else None, environment)


def _verifies(environment: Mapping[str, str], *, default: bool = True) -> bool:
    said = environment.get("CLEARML_API_HOST_VERIFY_CERT", "").strip().lower()
    return said not in ("0", "false", "no", "off", "n") if said else default


def _by_sdk(conf: Path | None, environment: Mapping[str, str]) -> ClearMLConfiguration:
    from clearml.backend_api.session import Session
    from clearml.backend_api.session.defs import ENV_ACCESS_KEY, ENV_SECRET_KEY
    from clearml.config import config_obj

    try:
        return ClearMLConfiguration(
            api=str(Session.get_api_server_host()),
            files=str(Session.get_files_server_host()),
            origin=str(conf) if conf else "environment",
            access_key=str(ENV_ACCESS_KEY.get(default=config_obj.get("api.credentials.access_key", None)) or ""),
            secret_key=str(ENV_SECRET_KEY.get(default=config_obj.get("api.credentials.secret_key", None)) or ""),
            verify=_verifies(environment, default=bool(config_obj.get("api.verify_certificate", True))),
        )
    except Exception as error:  # pyparsing's and pyhocon's own, of a file that is none
        raise ValueError(f"{conf}: {type(error).__name__}") from error
