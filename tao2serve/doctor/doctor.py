"""All checks, in the order they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from tao2serve.config import Settings, load_settings
from tao2serve.doctor.check import Check, examine
from tao2serve.doctor.clearml import clearml_examination
from tao2serve.doctor.client import client_examinations
from tao2serve.doctor.known import Known
from tao2serve.doctor.machine import machine_examinations
from tao2serve.doctor.sandbox import sandbox_examinations
from tao2serve.doctor.servers import server_examinations
from tao2serve.errors import UsageError

__all__ = ["anything_wrong", "doctor"]


def doctor() -> tuple[Check, ...]:
    """Look at everything at once; changes nothing but a file of 33 bytes that ClearML's server stores and removes.

    Never raises for what it finds, and never waits longer than the longest limit of a check. Settings that cannot be
    read are one of its findings; the defaults are looked at then.
    """
    known = Known()
    try:
        settings = load_settings()
    except UsageError:
        settings = Settings.model_construct()
    return examine(
        (
            *client_examinations(),
            *sandbox_examinations(),
            clearml_examination(settings, known),
            *server_examinations(settings, known),
            *machine_examinations(settings),
        ),
        secrets=lambda: known.secrets,
    )


def anything_wrong(checks: Sequence[Check]) -> bool:
    """Whether something that is here, or configured, does not work; what is merely missing does not count."""
    return any(check.status == "wrong" for check in checks)
