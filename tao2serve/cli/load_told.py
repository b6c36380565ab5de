"""What `loadtest` tells the ClearML task of the deployment that it tests; a test is none the worse if it cannot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tao2serve.errors import Tao2ServeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tao2serve.deployment.load_report import Deployed
    from tao2serve.loadtest import Gate, LoadResult
    from tao2serve.loadtest.series import LoadSeries
    from tao2serve.steps import Steps

__all__ = ["deployment_of", "tell"]

NAMED: Final = re.compile(r"([A-Za-z]\w*)(?:/(\d+))?")


def deployment_of(endpoint: str, steps: Steps, *, service: str) -> Deployed | None:
    """Return the deployment of ours behind `NAME` or `NAME/VERSION`; None of a URL, or if none is known."""
    match = NAMED.fullmatch(endpoint)
    if match is None:
        return None
    from tao2serve.deployment.load_report import find_deployment
    from tao2serve.serving.service import find_service

    with steps.step("find its deployment") as step:
        try:
            version = int(match[2]) if match[2] else None
            found = find_deployment(match[1], version, service_id=find_service(service).id)
        except Tao2ServeError as error:
            step.note(f"not known: {error}")
            return None
        step.note(f"ClearML task {found.task_id}" if found else "none of ours, or several versions share the alias")
    return found


def tell(
    deployed: Deployed, load: LoadResult | LoadSeries, steps: Steps, *, directory: Path, gates: Sequence[Gate]
) -> bool:
    """Report a load test to its deployment; return whether ClearML took it."""
    from tao2serve.deployment.load_report import report_load

    with steps.step("report to ClearML") as step:
        try:
            report_load(deployed, load, directory=directory, gates=gates)
        except Tao2ServeError as error:
            step.note(f"not reported: {error}")
            return False
        step.note(f"ClearML task {deployed.task_id}")
    return True
