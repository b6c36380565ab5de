"""What is made of weights: ONNX in a precision, with what it costs, and engines where they can be built."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image
from plan_files import VERSION, plan_bytes, record
from templates import quantized, template
from tensorrt_standin import StandIn

from tao2serve.artifacts import ArtifactRequest, Artifacts, EngineWish, make_artifacts
from tao2serve.config import Settings
from tao2serve.errors import InputError, ParityError, ToolError, UsageError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.record import record_path
from tao2serve.export.execution import open_model
from tao2serve.export.lean import lean_signature, make_lean
from tao2serve.export.local import detect
from tao2serve.export.precision.nodes import properties
from tao2serve.export.precision.write import Precision
from tao2serve.runtime import DetectorParams
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.steps import Steps
from tao2serve.tao.params import to_params
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import read_spec
from tao2serve.values import ModelArtifact

PRUNED = SAMPLE / "pruned"
WEIGHTS = next((PRUNED / "weights").glob("*.hdf5"))
SPEC = read_spec(PRUNED / "experiment_spec.txt")
IMAGES, LABELS = SAMPLE / "images", SAMPLE / "labels"


def made(
    folder: Path, request: ArtifactRequest, *, weights: Path = WEIGHTS, settings: Settings | None = None
) -> Artifacts:
    return make_artifacts(weights, SPEC, request, settings or Settings(), folder=folder / "made", steps=Steps())


def test_int8_keeps_the_accuracy_of_the_sample(tmp_path: Path) -> None:
    """Quantized on its own pictures the sample loses less than a point of mAP, and the cost is measured."""
    request = ArtifactRequest(precision="int8", calibration_images=IMAGES, images=IMAGES, labels=LABELS)
    artifacts = made(tmp_path, request)
    assert (artifacts.model.precision, accept_onnx(artifacts.model.path).precision) == ("int8", "int8")
    cost = artifacts.cost
    assert cost is not None
    assert cost.passed
    assert cost.accuracy is not None
    assert cost.accuracy.drop <= 0.01
    assert cost.accuracy.reference.mean > 0.9
    assert cost.boxes.matched_ratio >= 0.9
    assert max(tensor.max_abs for tensor in cost.tensors) > 0
    assert cost.reference.name == "resnet10_street_pruned.onnx"
    json.dumps(cost.to_dict(), allow_nan=False)


def test_fp16_matches_nearly_every_box(tmp_path: Path) -> None:
    """float16 on real pictures, batch norm folded: the boxes stay, and nothing overflows."""
    artifacts = made(tmp_path, ArtifactRequest(precision="fp16", images=IMAGES))
    assert artifacts.model.precision == "fp16"
    assert properties(onnx.load(str(artifacts.model.path)))["tao2serve.batch_norm"] == "folded"
    assert artifacts.cost is not None
    assert artifacts.cost.boxes.matched_ratio >= 0.99


def test_a_precision_that_costs_too_much_is_a_parity_error(tmp_path: Path) -> None:
    """Exit 7 with what was lost, unless it is accepted."""
    strict = Settings(matched_ratio=1.0, matched_ratio_int8=1.0)
    crushed = tmp_path / "cache"
    crushed.write_text(_crushed_cache(tmp_path))
    request = ArtifactRequest(precision="int8", calibration_cache=crushed, images=IMAGES)
    with pytest.raises(ParityError) as caught:
        made(tmp_path / "b", request, settings=strict)
    assert "boxes match" in caught.value.evidence
    assert "--accept-parity" in caught.value.hint
    accepted = made(tmp_path / "c", replace(request, accept_parity=True), settings=strict)
    assert accepted.cost is not None
    assert not accepted.cost.passed


def _crushed_cache(folder: Path) -> str:
    """A calibration cache with ranges far too small."""
    import onnx

    model = onnx.load(str(export_onnx(WEIGHTS, output=folder / "plain.onnx").path))
    names = [model.graph.input[0].name, *(name for node in model.graph.node for name in node.output)]
    return "TRT-8501-EntropyCalibration2\n" + "".join(f"{name}: 38000000\n" for name in names)


def test_a_dead_int8_detector_is_never_served(tmp_path: Path) -> None:
    """Ranges far too large give a network that finds nothing; on pictures without objects that shows in its tensors."""
    dead = tmp_path / "cache"
    dead.write_text(_crushed_cache(tmp_path).replace("38000000", "43000000"))
    with pytest.raises(ParityError, match="too far") as caught:
        made(tmp_path / "b", ArtifactRequest(precision="int8", calibration_cache=dead))
    assert "cosine" in caught.value.evidence
    assert caught.value.details["cost"]["outcome"] == "failed"


def test_what_will_be_served_must_have_been_judged(tmp_path: Path) -> None:
    """int8 on pictures that show nothing is let pass for a file, and refused for an endpoint."""
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (384, 224), "gray").save(tmp_path / "empty" / "gray.png")
    request = ArtifactRequest(precision="int8", calibration_images=IMAGES, images=tmp_path / "empty")
    seen = made(tmp_path / "a", request)
    assert seen.cost is not None
    assert not seen.cost.judged
    with pytest.raises(ParityError, match="cannot be judged"):
        made(tmp_path / "b", replace(request, must_be_judged=True))


def test_misspelt_fields_are_warned_of(tmp_path: Path) -> None:
    """What the spec's author wrote and nobody reads is said wherever the spec is used, with the few pictures."""
    text = (PRUNED / "experiment_spec.txt").read_text().replace("dbscan_eps", "dbscan_epz", 1)
    (tmp_path / "spec.txt").write_text(text)
    request = ArtifactRequest(precision="int8", calibration_images=IMAGES / "street_01.jpg", images=IMAGES)
    spec = read_spec(tmp_path / "spec.txt")
    artifacts = make_artifacts(WEIGHTS, spec, request, Settings(), folder=tmp_path / "made", steps=Steps())
    assert any("dbscan_epz" in warning for warning in artifacts.warnings)
    assert any("few" in warning for warning in artifacts.warnings)


def test_trained_ranges_name_tensors_of_the_graph(tmp_path: Path) -> None:
    """A model trained for quantization has its scales written for the plain graph, and becomes int8 by them alone."""
    weights = quantized(template("resnet10", input_chw=(3, 64, 96), width=0.25)).write(tmp_path / "qat.hdf5")
    plain = make_artifacts(weights, None, ArtifactRequest(), Settings(), folder=tmp_path / "plain", steps=Steps())
    assert plain.scales
    model = onnx.load(str(plain.model.path))
    known = {model.graph.input[0].name, *(name for node in model.graph.node for name in node.output)}
    assert set(plain.scales) <= known
    scales = tmp_path / "scales.json"
    scales.write_text(json.dumps({"tensor_scales": dict(plain.scales)}))
    for name, request in (
        ("own", ArtifactRequest(precision="int8", accept_parity=True)),
        ("file", ArtifactRequest(precision="int8", calibration_cache=scales, accept_parity=True)),
    ):
        made_int8 = make_artifacts(weights, None, request, Settings(), folder=tmp_path / name, steps=Steps())
        assert made_int8.scales is None
        assert made_int8.model.precision == "int8"
    assert (tmp_path / "own" / "qat_int8.onnx").stat().st_size == (tmp_path / "file" / "qat_int8.onnx").stat().st_size
    folded = ArtifactRequest(fold_batch_norm=True)
    assert make_artifacts(weights, None, folded, Settings(), folder=tmp_path / "folded", steps=Steps()).scales is None


def test_folding_changes_no_number(tmp_path: Path) -> None:
    """--fold-batch-norm leaves no batch norm in the graph, and parity with the weights holds."""
    artifacts = made(tmp_path, ArtifactRequest(fold_batch_norm=True))
    model = onnx.load(str(artifacts.model.path))
    assert not any("batchnorm/mul_1" in name for node in model.graph.node for name in node.output)
    assert artifacts.cost is None


def test_int8_needs_ranges(tmp_path: Path) -> None:
    """Without pictures, cache or training for quantization there is nothing to go by: exit 2, and what to give."""
    with pytest.raises(UsageError, match="int8") as caught:
        made(tmp_path, ArtifactRequest(precision="int8"))
    assert "--calibration-images" in caught.value.hint
    with pytest.raises(UsageError):
        ArtifactRequest(precision="fp16", calibration_images=IMAGES)


def test_an_engine_without_tensorrt_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4 with the command for a machine that has it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as caught:
        made(tmp_path, ArtifactRequest(engine=EngineWish()))
    assert "trtexec" in caught.value.evidence
    assert "--engine" in caught.value.hint


def test_a_plan_is_held_against_this_machine_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for another GPU is refused with both sides; one that fits is taken as it is. The machine is made up."""
    path = tmp_path / "model.plan"
    path.write_bytes(plan_bytes())
    signature = export_onnx(WEIGHTS, output=tmp_path / "plain.onnx").signature
    record_path(path).write_bytes(record(plan_sha256=sha256_of(path), signature=signature).to_json())
    other = Machine(gpu_name="NVIDIA T4", compute_capability="7.5", tensorrt_version=VERSION, platform="linux-x86_64")
    monkeypatch.setattr("tao2serve.artifacts.read_machine", lambda: other)
    with pytest.raises(InputError, match="does not fit") as caught:
        made(tmp_path, ArtifactRequest(), weights=path)
    assert "NVIDIA H200" in caught.value.evidence
    fitting = replace(other, gpu_name="NVIDIA H200", compute_capability="9.0")
    monkeypatch.setattr("tao2serve.artifacts.read_machine", lambda: fitting)
    artifacts = made(tmp_path, ArtifactRequest(), weights=path)
    assert (artifacts.model.format, artifacts.model.precision) == ("tensorrt_plan", "fp16")
    with pytest.raises(UsageError):
        made(tmp_path, ArtifactRequest(precision="int8"), weights=path)


@pytest.mark.parametrize("precision", [None, "fp16", "int8"])
def test_a_lean_model_comes_with_the_graph_it_was_made_from(tmp_path: Path, precision: Precision | None) -> None:
    """Last of all steps, in whatever precision; TAO's graph stays beside it, and boxes are those of the plain one."""
    images = IMAGES if precision == "int8" else None
    plain = ArtifactRequest(precision=precision, calibration_images=images)
    lean = made(tmp_path / "lean", replace(plain, uint8_input=True, absolute_boxes=True))
    wanted = made(tmp_path / "plain", plain)
    assert lean.original is not None
    assert [artifact.path.name for artifact in lean.all] == [
        wanted.model.path.with_stem(f"{wanted.model.path.stem}_lean").name, wanted.model.path.name,
    ]  # fmt: skip
    assert lean.original.sha256 == wanted.model.sha256
    assert wanted.original is None
    assert lean.model.signature.takes_pixels
    assert lean.model.signature.gives_boxes
    assert lean.model.precision == (precision or "fp32")
    params = DetectorParams.from_dict(to_params(SPEC))
    picture = next(IMAGES.glob("*.jpg")).read_bytes()
    ours, theirs = (detect(open_model(side.model.path), picture, params) for side in (wanted, lean))
    assert ours.xyxy.tobytes() == theirs.xyxy.tobytes()
    assert len(ours) > 3


def test_each_lean_option_stands_alone(tmp_path: Path) -> None:
    """Pixels without boxes, for which no spec is needed, and boxes without pixels."""
    pixels = make_artifacts(
        WEIGHTS, None, ArtifactRequest(uint8_input=True), Settings(), folder=tmp_path / "p", steps=Steps()
    )
    assert (pixels.model.signature.takes_pixels, pixels.model.signature.gives_boxes) == (True, False)
    boxes = made(tmp_path, ArtifactRequest(absolute_boxes=True))
    assert (boxes.model.signature.takes_pixels, boxes.model.signature.gives_boxes) == (False, True)
    # What is lean already stays what it is, and is not converted.
    again = made(tmp_path / "again", ArtifactRequest(absolute_boxes=True), weights=boxes.model.path)
    assert (again.model.path, again.original) == (boxes.model.path, None)
    more = made(tmp_path / "more", ArtifactRequest(uint8_input=True), weights=boxes.model.path)
    assert more.model.signature.takes_pixels
    assert more.model.signature.gives_boxes
    for request in (ArtifactRequest(precision="fp16"), ArtifactRequest(fold_batch_norm=True)):
        with pytest.raises(InputError, match="keeps its precision"):
            made(tmp_path / request.precision if request.precision else tmp_path / "fold", request,
                 weights=boxes.model.path)  # fmt: skip


def test_boxes_need_a_spec(tmp_path: Path) -> None:
    """Its bbox scale and offset; said before any work, with what to add."""
    request = ArtifactRequest(absolute_boxes=True)
    with pytest.raises(UsageError, match="--absolute-boxes") as caught:
        make_artifacts(WEIGHTS, None, request, Settings(), folder=tmp_path / "made", steps=Steps())
    assert "--spec" in caught.value.hint
    assert not (tmp_path / "made").exists()


def test_an_engine_of_a_lean_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is built from the lean graph. Its builder is a stand-in for TensorRT."""
    package = StandIn(VERSION)
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    artifacts = made(tmp_path, ArtifactRequest(uint8_input=True, absolute_boxes=True, engine=EngineWish()))
    assert artifacts.plan is not None
    assert artifacts.plan.path.name == "resnet10_street_pruned_lean.plan"
    assert artifacts.plan.signature == artifacts.model.signature
    assert package.called("set_shape")[0][0] == "pixels"
    assert len(artifacts.all) == 3


def test_an_engine_elsewhere_is_asked_for_with_the_same_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TensorRT the commands for another machine make the same plan."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ToolError) as caught:
        made(tmp_path, ArtifactRequest(uint8_input=True, absolute_boxes=True, engine=EngineWish(max_batch=16)))
    assert f"export {WEIGHTS} --uint8-input --absolute-boxes --engine" in caught.value.hint
    assert "--onnx=resnet10_street_pruned_lean.onnx" in caught.value.hint
    assert "'pixels'" in caught.value.hint


def test_a_plan_is_lean_or_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished plan cannot be made lean; one that is so passes."""
    path = tmp_path / "model.plan"
    path.write_bytes(plan_bytes())
    signature = export_onnx(WEIGHTS, output=tmp_path / "plain.onnx").signature
    here = Machine(gpu_name="NVIDIA H200", compute_capability="9.0", tensorrt_version=VERSION, platform="linux-x86_64")
    monkeypatch.setattr("tao2serve.artifacts.read_machine", lambda: here)
    record_path(path).write_bytes(record(plan_sha256=sha256_of(path), signature=signature).to_json())
    with pytest.raises(UsageError, match="stays what it is"):
        made(tmp_path, ArtifactRequest(uint8_input=True), weights=path)
    lean = lean_signature(signature, uint8_input=True)
    record_path(path).write_bytes(record(plan_sha256=sha256_of(path), signature=lean).to_json())
    assert made(tmp_path, ArtifactRequest(uint8_input=True), weights=path).model.signature.takes_pixels


def test_a_lean_graph_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 7 if a bit differs, unless that is accepted; then it is a warning. The difference is played."""

    def differs(lean: ModelArtifact, _source: ModelArtifact, _params: DetectorParams) -> str:
        raise ParityError(str(lean.path), "does not give the bits of m.onnx", evidence="output_boxes is off by 0.5")

    monkeypatch.setattr("tao2serve.artifacts.prove_lean", differs)
    request = ArtifactRequest(uint8_input=True)
    with pytest.raises(ParityError, match="bits"):
        made(tmp_path / "a", request)
    accepted = made(tmp_path / "b", replace(request, accept_parity=True))
    assert any("off by 0.5" in warning for warning in accepted.warnings)


def test_pixels_that_nobody_asked_for_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With None the served graph takes pixels if it gives the same bits, and is TAO's if not; --accept-parity or no."""
    served = made(tmp_path / "a", ArtifactRequest(uint8_input=None))
    assert served.model.signature.takes_pixels
    assert served.original is not None

    def differs(lean: ModelArtifact, _source: ModelArtifact, _params: DetectorParams) -> str:
        raise ParityError(str(lean.path), "does not give the bits of m.onnx")

    monkeypatch.setattr("tao2serve.artifacts.prove_lean", differs)
    for number, accept in enumerate((False, True)):
        plain = made(tmp_path / f"b{number}", ArtifactRequest(uint8_input=None, accept_parity=accept))
        assert not plain.model.signature.takes_pixels
        assert plain.model.sha256 == served.original.sha256
        assert plain.original is None


def test_a_graph_that_cannot_take_pixels_still_gives_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is made, though what was not cannot be. The refusal is played."""
    real = make_lean

    def refuses_pixels(*arguments: Any, **options: Any) -> ModelArtifact:
        if options["uint8_input"]:
            raise InputError("m.onnx", "has a tensor 'pixels' already")
        return real(*arguments, **options)

    monkeypatch.setattr("tao2serve.artifacts.make_lean", refuses_pixels)
    signature = made(tmp_path, ArtifactRequest(uint8_input=None, absolute_boxes=True)).model.signature
    assert (signature.takes_pixels, signature.gives_boxes) == (False, True)
