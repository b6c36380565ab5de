"""The real thing: plans of the sample detector, built and run on this machine's GPU.

Not run where they were written, which has no GPU: docs/tensorrt.md says what was seen and what was not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tao2serve.errors import InputError, ToolError
from tao2serve.export.convert import export_onnx
from tao2serve.export.engine.build import build_engine
from tao2serve.export.engine.builder import EngineBuilder
from tao2serve.export.engine.execute import run_plan
from tao2serve.export.engine.find import find_builder
from tao2serve.export.engine.fit import require_fit
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.plan import read_plan
from tao2serve.export.engine.request import EngineRequest
from tao2serve.export.execution import open_model, sample_images, sample_pixels
from tao2serve.export.lean import make_lean
from tao2serve.runtime import DetectorParams
from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec
from tao2serve.values import ModelArtifact

pytestmark = pytest.mark.gpu

RUN = SAMPLE / "pruned"
# Largest difference of coverage from fp32 on the CPU; what fp16 and int8 cost in boxes is for `verify` to say.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.5}


def _in_precision(precision: str, folder: Path) -> tuple[ModelArtifact, ModelArtifact]:
    """The sample in fp32, and in the precision."""
    plain = export_onnx(RUN / "weights" / "resnet10_street_pruned.hdf5", output=folder / "plain.onnx")
    if precision == "fp32":
        return plain, plain
    write = pytest.importorskip("tao2serve.export.precision.write")
    calibrate = pytest.importorskip("tao2serve.export.precision.calibrate")
    load = pytest.importorskip("tao2serve.export.precision.load")
    ranges = None
    if precision == "int8":
        params = DetectorParams.from_dict(to_params(read_spec(RUN / "experiment_spec.txt")))
        ranges = calibrate.calibrate(load.load_model(plain), pictures(), params=params, subject="the sample")
    return plain, write.to_precision(plain, precision=precision, ranges=ranges, output=folder)


@pytest.mark.usefixtures("_with_tensorrt")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_gives_the_numbers_of_its_source(tmp_path: Path, here: Machine, precision: str) -> None:
    """Built in process, read back, judged to fit, run: near fp32 on the CPU, and the same for one image as for many."""
    plain, artifact = _in_precision(precision, tmp_path)
    request = EngineRequest(artifact=artifact, max_batch=8, timing_cache=tmp_path / "timings")
    builder = find_builder(request, here=here, log=tmp_path / "log", wanted="tensorrt")
    news: list[str] = []
    built = build_engine(request, output=tmp_path / "m.plan", builder=builder, here=here, on_news=news.append)
    assert news
    assert (tmp_path / "timings").stat().st_size > 0
    plan = read_plan(built.path)
    assert plan.record is not None
    assert (plan.record.precision, plan.record.gpu_name) == (precision, here.gpu_name)
    assert plan.header_version.startswith(".".join(builder.version.split(".")[:3]))
    assert require_fit(plan, here) == ()
    images = sample_images(artifact.signature, count=11)
    found, wanted = run_plan(built.path, images), open_model(plain.path).run(images)
    assert float(np.abs(found.coverage - wanted.coverage).max()) <= TOLERANCE[precision]
    alone = run_plan(built.path, images[:1])
    assert float(np.abs(alone.coverage[0] - found.coverage[0]).max()) <= TOLERANCE[precision]


@pytest.mark.usefixtures("_with_tensorrt")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_lean_plan_gives_the_numbers_of_its_source(tmp_path: Path, here: Machine, precision: str) -> None:
    """uint8 pixels in, boxes out: near the same graph on the CPU, boxes within what fp32 offsets may be off."""
    _, artifact = _in_precision(precision, tmp_path)
    params = DetectorParams.from_dict(to_params(read_spec(RUN / "experiment_spec.txt")))
    lean = make_lean(artifact, output=tmp_path / "l.onnx", uint8_input=True, absolute_boxes=True, params=params)
    request = EngineRequest(artifact=lean)
    builder = find_builder(request, here=here, log=tmp_path / "log", wanted="tensorrt")
    built = build_engine(request, output=tmp_path / "l.plan", builder=builder, here=here, on_news=lambda _: None)
    model = open_model(built.path)
    assert model.signature == lean.signature
    pixels = sample_pixels(lean.signature, count=3)
    found, wanted = model.see(pixels), open_model(lean.path).see(pixels)
    assert float(np.abs(found.coverage - wanted.coverage).max()) <= TOLERANCE[precision]
    if precision == "fp32":
        assert float(np.abs(found.bbox - wanted.bbox).max()) <= TOLERANCE[precision] * params.bbox_scale


def test_a_plan_by_trtexec(tmp_path: Path, here: Machine) -> None:
    """NVIDIA's own program takes our command line, and its plan is read like any other."""
    if here.trtexec is None:
        pytest.skip("trtexec is not on PATH")
    _, artifact = _in_precision("fp32", tmp_path)
    request = EngineRequest(artifact=artifact, max_batch=4)
    builder: EngineBuilder = find_builder(request, here=here, log=tmp_path / "log", wanted="trtexec")
    built = build_engine(request, output=tmp_path / "m.plan", builder=builder, here=here, on_news=lambda _: None)
    plan = read_plan(built.path)
    assert plan.header_version.startswith(".".join(builder.version.split(".")[:3]))


@pytest.mark.usefixtures("_with_tensorrt")
def test_a_damaged_plan_is_refused(tmp_path: Path, here: Machine) -> None:
    """A plan without a record that is damaged further in is refused by TensorRT, in our words."""
    _, artifact = _in_precision("fp32", tmp_path)
    request = EngineRequest(artifact=artifact)
    builder = find_builder(request, here=here, log=tmp_path / "log", wanted="tensorrt")
    content = builder.build(request, on_news=lambda _: None)
    path = tmp_path / "m.plan"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises((InputError, ToolError)):
        run_plan(path, sample_images(artifact.signature, count=1))


def test_a_plan_of_another_gpu_does_not_fit(tmp_path: Path, here: Machine) -> None:
    """What this machine is, read for real, is held against a record of another."""
    from plan_files import plan_bytes, record

    path = tmp_path / "m.plan"
    path.write_bytes(plan_bytes())
    plan = replace(read_plan(path), record=record(compute_capability="1.0", platform=here.platform))
    with pytest.raises(InputError, match="does not fit"):
        require_fit(plan, here)
