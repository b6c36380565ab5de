"""The connection to ClearML: imported late, its failures translated at one boundary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tao2serve.errors import ServiceError, Tao2ServeError, UsageError

__all__ = ["clearml", "translated"]


def clearml() -> Any:
    """Import and return the ClearML SDK (3 seconds); raises UsageError when nothing says which server to use."""
    configured = os.environ.get("CLEARML_API_ACCESS_KEY") and os.environ.get("CLEARML_API_SECRET_KEY")
    conf = Path(os.environ.get("CLEARML_CONFIG_FILE") or Path.home() / "clearml.conf").expanduser()
    if not configured and not conf.is_file():
        raise UsageError(
            "ClearML",
            "is not configured",
            evidence=f"neither CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY nor {conf}",
            hint='run clearml-init, or use the sandbox: tao2serve sandbox up && eval "$(tao2serve sandbox env)"',
        )
    import clearml as sdk

    return sdk


@contextlib.contextmanager
def translated(subject: str, fact: str) -> Iterator[None]:
    """Turn whatever the SDK raises into ServiceError; errors of ours pass through."""
    try:
        yield
    except Tao2ServeError:
        raise
    except Exception as error:
        raise ServiceError(
            subject,
            fact,
            evidence=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}",
            hint="check the ClearML server's address and credentials: CLEARML_API_HOST, clearml.conf",
        ) from error
