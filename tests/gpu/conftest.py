"""Tests that need an NVIDIA GPU with TensorRT; elsewhere each is skipped, with the reason."""

from __future__ import annotations

import pytest

from tao2serve.export.engine.machine import Machine, import_tensorrt, read_machine


@pytest.fixture(scope="session")
def here() -> Machine:
    """This machine, if it has a GPU."""
    machine = read_machine()
    if not machine.gpu_name:
        pytest.skip("no NVIDIA GPU: nvidia-smi shows none")
    return machine


@pytest.fixture
def _with_tensorrt(here: Machine) -> None:
    module, trouble = import_tensorrt()
    if module is None:
        pytest.skip(f"the tensorrt package is not here: {trouble or 'not installed'}")
