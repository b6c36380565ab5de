"""The connection to ClearML: imported late, its failures translated at one boundary."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import ServiceError, Tao2ServeError, UsageError
from tao2serve.registry.patience import away, limit_waiting

__all__ = ["clearml", "require_configured", "translated"]

LOOK_S: Final = 10.0


def require_configured() -> None:
    """Raise UsageError when nothing says which ClearML server to use; asks nobody."""
    configured = os.environ.get("CLEARML_API_ACCESS_KEY") and os.environ.get("CLEARML_API_SECRET_KEY")
    conf = Path(os.environ.get("CLEARML_CONFIG_FILE") or Path.home() / "clearml.conf").expanduser()
    if not configured and not conf.is_file():
        raise UsageError(
            "ClearML",
            "is not configured",
            evidence=f"neither CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY nor {conf}",
            hint='run clearml-init, or use the sandbox: tao2serve sandbox up && eval "$(tao2serve sandbox env)"',
        )


def clearml() -> Any:
    """Import and return the ClearML SDK (3 seconds); raises UsageError when nothing says which server to use,
    ServiceError when that server does not answer."""
    require_configured()
    import clearml as sdk

    _require_answer(limit_waiting().patience_s)
    return sdk


@functools.cache
def _require_answer(patience_s: float) -> None:
    """Ask the API server once, briefly: one that was never there is not worth the SDK's patience.

    Raises ServiceError; one that accepts connections and does not answer has the right address.
    """
    import httpx
    from clearml.backend_api.session import Session

    host, limit_s = str(Session.get_api_server_host()), min(LOOK_S, patience_s)
    try:
        httpx.get(f"{host}/debug.ping", timeout=limit_s, verify=False)  # noqa: S501 - nothing is sent; the SDK verifies
    except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
        raise ServiceError(
            f"ClearML server {host}",
            f"accepts connections, but has not answered for {limit_s:g} s",
            evidence=f"{host}/debug.ping: {error or type(error).__name__}",
            hint="wait until it answers, or start it anew, then run this again: what serves goes on meanwhile; "
            "for the sandbox: tao2serve sandbox status",
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(
            f"ClearML server {host}",
            "cannot be reached",
            evidence=str(error) or type(error).__name__,
            hint="check CLEARML_API_HOST or clearml.conf; for the sandbox: tao2serve sandbox status",
        ) from error


@contextlib.contextmanager
def translated(subject: str, fact: str) -> Iterator[None]:
    """Turn whatever the SDK raises into ServiceError; errors of ours pass through.

    If a server is away, that is the error, whatever the SDK made of it.
    """
    try:
        yield
    except Tao2ServeError:
        raise
    except Exception as error:
        if (gone := away()) is not None:
            raise gone from error
        raise ServiceError(
            subject,
            fact,
            evidence=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}",
            hint="check the ClearML server's address and credentials: CLEARML_API_HOST, clearml.conf",
        ) from error
