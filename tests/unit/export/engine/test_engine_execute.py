"""Running a plan: the calls on stand-ins that compute something simple in memory of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from plan_files import HERE, SIGNATURE, VERSION, plan_bytes, record
from tensorrt_standin import VERSIONS, CudaStandIn, RunningStandIn, StandIn

from tao2serve.errors import InputError, ToolError
from tao2serve.export.engine.execute import run_plan
from tao2serve.export.engine.record import record_path
from tao2serve.export.execution import open_model
from tao2serve.export.lean import lean_signature
from tao2serve.tao.keras import Array
from tao2serve.tao.source import sha256_of


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
        with pytest.raises(ToolError, match="CUDA failed") as caught:
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


@pytest.mark.parametrize("version", VERSIONS)
def test_a_lean_plan_takes_bytes_and_gives_boxes(
    monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn, plan: Path, version: str
) -> None:
    """uint8 pixels reach the GPU as bytes, in batches; what is compared is `output_boxes`. Floats are refused."""
    _package(monkeypatch, RunningStandIn(version, lean=True))
    levels = np.array([7, 100, 255, 0, 31], np.uint8).reshape(-1, 1, 1, 1)
    pixels = np.broadcast_to(levels, (5, 32, 48, 3))
    found = run_plan(plan, pixels)
    np.testing.assert_allclose(found.coverage, np.broadcast_to(levels.astype(np.float32), (5, 2, 8, 12)))
    np.testing.assert_allclose(found.bbox, -np.broadcast_to(levels.astype(np.float32), (5, 8, 8, 12)))
    with pytest.raises(InputError, match="cannot take these images") as caught:
        run_plan(plan, pixels.astype(np.float32))
    assert "wants uint8" in caught.value.evidence
    assert not cuda.held


def test_bytes_are_not_cast_into_a_plan_of_floats(
    monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn, plan: Path
) -> None:
    """They would be numbers up to 255 where the network wants up to 1."""
    _package(monkeypatch, RunningStandIn(VERSIONS[-1]))
    with pytest.raises(InputError, match="cannot take these images"):
        run_plan(plan, np.zeros((1, 3, 32, 48), np.uint8))
    assert not cuda.held


def test_a_lean_plan_is_seen_like_its_onnx(monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn, plan: Path) -> None:
    """By its record a plan says what it takes and gives: `see` hands it pixels, and its bbox are boxes."""
    signature = lean_signature(SIGNATURE, uint8_input=True, absolute_boxes=True)
    record_path(plan).write_bytes(record(plan_sha256=sha256_of(plan), signature=signature).to_json())
    _package(monkeypatch, RunningStandIn(VERSION, lean=True))
    monkeypatch.setattr("tao2serve.export.execution.read_machine", lambda: HERE)
    model = open_model(plan)
    assert model.signature == signature
    outputs = model.see(np.full((1, 32, 48, 3), 9, np.uint8))
    assert outputs.boxes == "absolute"
    assert set(outputs.bbox.ravel()) == {-9.0}
    assert not cuda.held
