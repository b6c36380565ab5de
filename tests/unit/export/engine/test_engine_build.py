"""Building in place: through the seam, and through the package's own calls on a stand-in for it."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from plan_files import HERE, VERSION, exported, plan_bytes
from tensorrt_standin import VERSIONS, StandIn

import tao2serve.export.engine.build as build_module
from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.export.atomic import write_atomically
from tao2serve.export.engine.build import build_engine
from tao2serve.export.engine.builder import BuilderName, News
from tao2serve.export.engine.find import find_builder
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.plan import plan_artifact, read_plan
from tao2serve.export.engine.record import record_path
from tao2serve.export.engine.request import EngineRequest
from tao2serve.export.engine.tensorrt_builder import TensorRTBuilder
from tao2serve.export.lean import make_lean
from tao2serve.values import Tensor


@dataclass
class FakeBuilder:
    """Builds nothing: it gives back the bytes it was made with."""

    content: bytes = plan_bytes()
    version: str = VERSION
    name: BuilderName = "tensorrt"

    def build(self, request: EngineRequest, *, on_news: News) -> bytes:
        on_news(f"pretending to build {request.artifact.path.name}")
        return self.content


def _silent(_line: str) -> None:
    pass


def test_a_plan_and_its_record(tmp_path: Path) -> None:
    """The artifact is the plan; the record says what built it, of what, where, and describes that very file."""
    request = EngineRequest(artifact=exported(tmp_path), min_batch=1, opt_batch=4, max_batch=16, ampere_plus=True)
    output = tmp_path / "out" / "model.plan"
    news: list[str] = []
    artifact = build_engine(request, output=output, builder=FakeBuilder(), here=HERE, on_news=news.append)
    assert news == ["pretending to build model.onnx"]
    assert (artifact.format, artifact.path, artifact.precision) == ("tensorrt_plan", output, "fp32")
    assert output.read_bytes() == plan_bytes()
    plan = read_plan(output)
    assert plan_artifact(plan) == artifact
    assert plan.record is not None
    record = plan.record
    assert (record.gpu_name, record.compute_capability, record.cuda_version) == ("NVIDIA H200", "9.0", "13.0")
    assert (record.tensorrt_version, record.builder, record.strongly_typed) == (VERSION, "tensorrt", True)
    assert (record.min_batch, record.opt_batch, record.max_batch, record.ampere_plus) == (1, 4, 16, True)
    assert (record.onnx_sha256, record.source_sha256) == (request.artifact.sha256, request.artifact.source_sha256)
    assert record.created_at.endswith("+00:00")
    assert sorted(path.name for path in output.parent.iterdir()) == ["model.plan", "model.plan.json"]


def test_what_is_no_plan_is_not_written(tmp_path: Path) -> None:
    """A builder that gives back anything but a plan has failed, and what was there stays."""
    request = EngineRequest(artifact=exported(tmp_path))
    output = tmp_path / "model.plan"
    build_engine(request, output=output, builder=FakeBuilder(), here=HERE, on_news=_silent)
    before = output.read_bytes(), record_path(output).read_bytes()
    for content in (b"", b"PK\x03\x04" * 50, b"ftrt"):
        with pytest.raises(ToolError, match="no plan"):
            build_engine(request, output=output, builder=FakeBuilder(content), here=HERE, on_news=_silent)
    assert (output.read_bytes(), record_path(output).read_bytes()) == before


@pytest.mark.parametrize("survives", [0, 1])
def test_no_record_is_ever_beside_another_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int) -> None:
    """Ended after any of its writings, a rebuild leaves a plan without a record, never with a wrong one."""
    request = EngineRequest(artifact=exported(tmp_path))
    output = tmp_path / "model.plan"
    build_engine(request, output=output, builder=FakeBuilder(), here=HERE, on_news=_silent)
    writings = 0

    def dies(path: Path, content: bytes) -> None:
        nonlocal writings
        if writings == survives:
            raise OSError("the disk is full")
        writings += 1
        write_atomically(path, content)

    monkeypatch.setattr(build_module, "write_atomically", dies)
    other = FakeBuilder(plan_bytes(body=b"\1" * 64))
    with pytest.raises(OSError, match="full"):
        build_engine(request, output=output, builder=other, here=HERE, on_news=_silent)
    assert read_plan(output).record is None
    assert output.read_bytes() == (other.content if survives else plan_bytes())


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    """A folder, or a place below a file, is wrong usage."""
    request = EngineRequest(artifact=exported(tmp_path))
    for output in (tmp_path, tmp_path / "model.onnx" / "model.plan"):
        with pytest.raises(UsageError):
            build_engine(request, output=output, builder=FakeBuilder(), here=HERE, on_news=_silent)


def test_an_artifact_is_checked_before_anything_is_built(tmp_path: Path) -> None:
    """A precision that is not in the ONNX file is refused first."""
    artifact = replace(exported(tmp_path), precision="int8")
    request = EngineRequest(artifact=artifact)
    with pytest.raises(InputError, match="carries fp32"):
        build_engine(request, output=tmp_path / "p", builder=FakeBuilder(), here=HERE, on_news=pytest.fail)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_the_package_is_told(tmp_path: Path, version: str, precision: str) -> None:
    """Flags by version, TensorFloat-32 off, one profile with our three shapes, the workspace, and the file's bytes."""
    package = StandIn(version)
    artifact = replace(exported(tmp_path), precision=precision)
    request = EngineRequest(artifact=artifact, min_batch=1, opt_batch=4, max_batch=16, workspace_bytes=1 << 30)
    plan = TensorRTBuilder(module=package).build(request, on_news=_silent)
    assert plan == plan_bytes(version)
    explicit, typed = 1 << 0, 1 << 1
    assert package.called("create_network") == [({"8": explicit, "10": typed, "11": 0}[version.split(".")[0]],)]
    wanted = {"fp16": [("FP16",)], "int8": [("INT8",)]}.get(precision, []) if version.startswith("8") else []
    assert package.called("set_flag") == wanted
    assert package.called("clear_flag") == [("TF32",)]
    assert package.called("set_memory_pool_limit") == [("WORKSPACE", 1 << 30)]
    assert package.called("set_shape") == [("input_1:0", (1, 3, 32, 48), (4, 3, 32, 48), (16, 3, 32, 48))]
    assert package.called("OnnxParser.parse") == [(artifact.path.read_bytes(), str(artifact.path))]
    assert not package.called("create_timing_cache")


@pytest.mark.parametrize("version", VERSIONS)
def test_progress_is_told(tmp_path: Path, version: str) -> None:
    """Where TensorRT has a progress monitor its steps are news, and before that its log."""
    news: list[str] = []
    TensorRTBuilder(module=StandIn(version)).build(EngineRequest(artifact=exported(tmp_path)), on_news=news.append)
    if version.startswith("8"):
        assert news == ["Building an engine"]
    else:
        assert news == ["Building Engine", *(f"Building Engine: {step} of 3" for step in (1, 2, 3))]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupt_is_not_lost_in_tensorrt(tmp_path: Path, version: str) -> None:
    """A signal ends the build at the next step, or after it where there are none, and is raised then."""
    package, news = StandIn(version), list[str]()
    package.during_build = lambda: os.kill(os.getpid(), signal.SIGINT)
    request = EngineRequest(artifact=exported(tmp_path), timing_cache=tmp_path / "timings")
    with pytest.raises(KeyboardInterrupt):
        TensorRTBuilder(module=package).build(request, on_news=news.append)
    assert news == ["Building an engine" if version.startswith("8") else "Building Engine"]


@pytest.mark.parametrize("version", VERSIONS)
def test_whoever_is_told_may_fail(tmp_path: Path, version: str) -> None:
    """What the watcher raises does not leave TensorRT's callback: it ends the build and is raised afterwards."""
    package, told = StandIn(version), list[str]()

    def fails(line: str) -> None:
        told.append(line)
        raise ValueError("no terminal")

    with pytest.raises(ValueError, match="no terminal"):
        TensorRTBuilder(module=package).build(EngineRequest(artifact=exported(tmp_path)), on_news=fails)
    assert len(told) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_hardware_level_is_set_on_request(tmp_path: Path, version: str) -> None:
    """Engines for every GPU since Ampere are built only if asked for."""
    package = StandIn(version)
    request = EngineRequest(artifact=exported(tmp_path), ampere_plus=True)
    TensorRTBuilder(module=package).build(request, on_news=_silent)
    ((level,),) = package.called("IBuilderConfig.hardware_compatibility_level")
    assert level.name == "AMPERE_PLUS"


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_the_parser_complains_of_is_shown(tmp_path: Path, version: str) -> None:
    """Every error of the parser, with its node, up to a number; more are counted."""
    package = StandIn(version)
    package.parse_errors = tuple((str(index), f"no importer for op {index}") for index in range(25))
    with pytest.raises(InputError, match="cannot be read by TensorRT") as caught:
        TensorRTBuilder(module=package).build(EngineRequest(artifact=exported(tmp_path)), on_news=_silent)
    lines = caught.value.evidence.splitlines()
    assert lines[0] == "node 0: no importer for op 0"
    assert lines[-1] == "and 5 more"
    assert len(lines) == 21


@pytest.mark.parametrize("version", VERSIONS)
def test_a_build_that_fails_shows_the_last_words(tmp_path: Path, version: str) -> None:
    """TensorRT gives nothing back and logs why: the log is the evidence."""
    package = StandIn(version)
    package.error = "Error Code 10: Could not find any implementation for node conv1"
    with pytest.raises(ToolError, match="could not be built") as caught:
        TensorRTBuilder(module=package).build(EngineRequest(artifact=exported(tmp_path)), on_news=_silent)
    assert caught.value.evidence == package.error


@pytest.mark.parametrize("version", VERSIONS)
def test_the_package_without_a_gpu(tmp_path: Path, version: str) -> None:
    """TensorRT without a GPU makes no builder; CUDA's words are shown, and no traceback."""
    package = StandIn(version)
    package.has_gpu = False
    with pytest.raises(ToolError, match="failed") as caught:
        TensorRTBuilder(module=package).build(EngineRequest(artifact=exported(tmp_path)), on_news=_silent)
    assert "is a GPU here?" in caught.value.evidence
    assert "CUDA initialization failure" in caught.value.evidence


def test_a_fixed_batch_size_must_be_the_one_asked_for(tmp_path: Path) -> None:
    """A network with a fixed batch size takes that size alone."""
    artifact = exported(tmp_path)
    builder = TensorRTBuilder(module=StandIn("11.4.0.106", batch=4))
    with pytest.raises(InputError, match="fixed batch size of 4"):
        builder.build(EngineRequest(artifact=artifact), on_news=_silent)
    builder.build(EngineRequest(artifact=artifact, min_batch=4, opt_batch=4, max_batch=4), on_news=_silent)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_timing_cache_is_read_and_kept(tmp_path: Path, version: str) -> None:
    """A cache that fits is used, one of another GPU is left aside, and the new timings are written."""
    artifact, cache = exported(tmp_path), tmp_path / "caches" / "timings"
    request = EngineRequest(artifact=artifact, timing_cache=cache)
    package = StandIn(version)
    TensorRTBuilder(module=package).build(request, on_news=_silent)
    assert package.called("create_timing_cache") == [(b"",)]
    assert cache.read_bytes() == b"timings"
    package = StandIn(version)
    package.good_caches = (b"", b"timings")
    TensorRTBuilder(module=package).build(request, on_news=_silent)
    assert package.called("create_timing_cache") == [(b"timings",)]
    cache.write_bytes(b"of another GPU")
    package, news = StandIn(version), list[str]()
    TensorRTBuilder(module=package).build(request, on_news=news.append)
    assert package.called("create_timing_cache") == [(b"of another GPU",), (b"",)]
    assert "timings is not a timing cache for this GPU and TensorRT; starting a new one" in news


def test_the_package_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensorrt package builds if it is here; one of an unknown version is a missing tool."""
    request = EngineRequest(artifact=exported(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn("11.4.0.106"))
    builder = find_builder(request, here=Machine(), log=tmp_path / "log")
    assert (builder.name, builder.version) == ("tensorrt", "11.4.0.106")
    old = StandIn("8.6.1")
    old.__version__ = "8.5.3"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(ToolError, match="not supported"):
        find_builder(request, here=Machine(), log=tmp_path / "log")


def test_nothing_that_builds_is_a_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what was looked for, and has both commands for a machine with a GPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    request = EngineRequest(artifact=exported(tmp_path), max_batch=32)
    with pytest.raises(ToolError, match="is not here") as caught:
        find_builder(request, here=Machine(), log=tmp_path / "log")
    assert caught.value.evidence.splitlines() == [
        "the tensorrt package: not installed", "trtexec: not on PATH", "GPU: none seen by nvidia-smi",
    ]  # fmt: skip
    assert f"tao2serve export {request.artifact.path} --engine --min-batch 1" in caught.value.hint
    assert f"trtexec --onnx={request.artifact.path} --saveEngine=model.plan" in caught.value.hint
    with pytest.raises(ToolError) as caught:
        find_builder(request, here=Machine(trtexec=Path("/no/trtexec")), log=tmp_path / "log", wanted="trtexec")
    assert caught.value.evidence.startswith("trtexec: /no/trtexec does not run")


def test_an_interrupt_waits_until_plan_and_record_belong_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the two writings is obeyed after the second."""
    monkeypatch.setattr(
        build_module, "write_atomically",
        lambda path, content: (write_atomically(path, content), os.kill(os.getpid(), signal.SIGINT)),
    )  # fmt: skip
    output = tmp_path / "model.plan"
    with pytest.raises(KeyboardInterrupt):
        build_engine(
            EngineRequest(artifact=exported(tmp_path)), output=output, builder=FakeBuilder(), here=HERE,
            on_news=_silent,
        )  # fmt: skip
    found = read_plan(output).record
    assert found is not None
    assert json.loads(record_path(output).read_bytes())["plan_sha256"] == read_plan(output).sha256


@pytest.mark.parametrize("version", VERSIONS)
def test_a_lean_graph_is_built_in_its_own_layout(tmp_path: Path, version: str) -> None:
    """The profile has the shapes of `pixels`, and the record the types and shapes of both ends. On a stand-in."""
    source = exported(tmp_path)
    lean = make_lean(source, output=tmp_path / "lean.onnx", uint8_input=True)
    package = StandIn(version)
    request = EngineRequest(artifact=lean, min_batch=1, opt_batch=4, max_batch=16)
    output = tmp_path / "lean.plan"
    builder = TensorRTBuilder(module=package)
    artifact = build_engine(request, output=output, builder=builder, here=HERE, on_news=_silent)
    assert package.called("set_shape") == [("pixels", (1, 32, 48, 3), (4, 32, 48, 3), (16, 32, 48, 3))]
    assert package.called("OnnxParser.parse") == [(lean.path.read_bytes(), str(lean.path))]
    assert artifact.signature == plan_artifact(read_plan(output)).signature == lean.signature
    assert artifact.signature.input == Tensor(name="pixels", datatype="UINT8", shape=(32, 48, 3))
