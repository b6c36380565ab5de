"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sandboxes import sandbox_of

# Tests that import onnxruntime themselves must not report to its maker either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell starts what it runs in the background with interrupts ignored, and children inherit that; tests send them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_GOLDEN = Path("shared") / "golden"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope` each process takes whole sandboxes, not single tests or modules.

    pytest-xdist 3.8 does not see its own marks of groups under pytest 9.2, so what belongs together goes by names.
    """
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class OneSandboxInOneProcess(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return sandbox_of(nodeid)

    return OneSandboxInOneProcess(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """tox runs pytest twice, by marker; of tests that somebody names, one of the two may select none."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and "TOX_ENV_NAME" in os.environ:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference data from NVIDIA's own code: $GOLDEN, or shared/golden above the repository."""
    if "GOLDEN" in os.environ:
        folder = Path(os.environ["GOLDEN"])
        if folder.is_dir():
            return folder
        pytest.skip(f"GOLDEN is {folder}, which is not a folder")
    for parent in Path(__file__).resolve().parents:
        if (parent / _GOLDEN).is_dir():
            return parent / _GOLDEN
    pytest.skip("reference data is not here: set GOLDEN, or put it into shared/golden above the repository")
