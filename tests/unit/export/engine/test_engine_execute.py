"""Running a plan: the calls on stand-ins that compute something simple in memory of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from plan_files import plan_bytes
from tensorrt_standin import VERSIONS, CudaStandIn, RunningStandIn, StandIn

from tao2serve.errors import InputError, ToolError
from tao2serve.export.engine.execute import run_plan
from tao2serve.tao.keras import Array


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    cuda = CudaStandIn()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    return cuda


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.plan"
    path.write_bytes(plan_bytes())
    return path


def _images(count: int) -> Array:
    levels = np.linspace(0.1, 0.9, count, dtype=np.float32).reshape(-1, 1, 1, 1)
    return np.broadcast_to(levels, (count, 3, 32, 48)).astype(np.float32)


def _package(monkeypatch: pytest.MonkeyPatch, package: StandIn) -> StandIn:
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    return package


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("profile", "count", "batches"),
    [((1, 4, 8), 3, [3]), ((1, 4, 8), 19, [8, 8, 8]), ((4, 4, 8), 1, [4]), ((2, 2, 2), 5, [2, 2, 2])],
)
def test_every_image_gets_its_own_answer(
    monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn, plan: Path, version: str,
    profile: tuple[int, int, int], count: int, batches: list[int],
) -> None:  # fmt: skip
    """Images go in batches the profile allows, filled up where there are too few; answers keep their order."""
    package = _package(monkeypatch, RunningStandIn(version, profile=profile))
    images = _images(count)
    found = run_plan(plan, images)
    assert found.coverage.shape == (count, 2, 8, 12)
    assert found.bbox.shape == (count, 8, 8, 12)
    means = images.mean(axis=(1, 2, 3)).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(found.coverage, np.broadcast_to(means, found.coverage.shape), rtol=1e-6)
    np.testing.assert_allclose(found.bbox, np.broadcast_to(-means, found.bbox.shape), rtol=1e-6)
    assert [shape[0] for (shape,) in package.called("set_input_shape")] == batches
    assert not cuda.held  # all memory, and the stream, were given back


def test_a_plan_that_tensorrt_refuses(monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn, plan: Path) -> None:
    """It was built for something else: the user is told to build it again."""
    _package(monkeypatch, RunningStandIn("11.4.0.106", loads=False))
    with pytest.raises(InputError, match=r"refused by TensorRT 11\.4\.0\.106") as caught:
        run_plan(plan, _images(1))
    assert "build it again" in caught.value.hint
    assert not cuda.held


@pytest.mark.parametrize("shape", [(0, 3, 32, 48), (1, 3, 32, 47), (3, 32, 48)])
def test_images_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn, plan: Path, shape: tuple[int, ...]
) -> None:
    """No image, or images of another size, are refused with both sizes."""
    _package(monkeypatch, RunningStandIn("10.16.1.11"))
    with pytest.raises(InputError, match="cannot take these images"):
        run_plan(plan, np.zeros(shape, np.float32))
    assert not cuda.held


def test_cuda_that_fails_is_a_tool_that_failed(monkeypatch: pytest.MonkeyPatch, plan: Path) -> None:
    """Without a device, or memory, CUDA's own words come, and what was taken is given back."""
    _package(monkeypatch, RunningStandIn("10.16.1.11"))
    for cuda, words in (
        (CudaStandIn(devices=0), "cudaErrorNoDevice: words for cudaErrorNoDevice"),
        (CudaStandIn(room=20_000), "cudaErrorMemoryAllocation"),
    ):
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
        with pytest.raises(ToolError, match="CUDA: failed") as caught:
            run_plan(plan, _images(1))
        assert words in caught.value.evidence
        assert not cuda.held


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, plan: Path) -> None:
    """Without tensorrt, or without cuda-python, the error has the command that installs them."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ToolError, match="tensorrt package") as caught:
        run_plan(plan, _images(1))
    assert caught.value.hint == "pip install 'tao2serve[tensorrt]'"
    _package(monkeypatch, RunningStandIn("10.16.1.11"))
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ToolError, match="cuda-python"):
        run_plan(plan, _images(1))


def test_what_is_no_plan_never_reaches_tensorrt(
    monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn, tmp_path: Path
) -> None:
    """A foreign file is refused by its first bytes."""
    _package(monkeypatch, RunningStandIn("10.16.1.11"))
    path = tmp_path / "model.plan"
    path.write_bytes(b"PK\x03\x04" * 20)
    with pytest.raises(InputError, match="not a TensorRT plan"):
        run_plan(path, _images(1))
    assert not cuda.held
