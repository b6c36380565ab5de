"""verify compares two forms of a model, and names the first stage where they part."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile
from onnx import numpy_helper
from PIL import Image

from tao2serve.cli.verify import summary
from tao2serve.config import Settings
from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.inference import onnxruntime
from tao2serve.export.lean import make_lean
from tao2serve.export.precision.write import to_precision
from tao2serve.runtime import DetectorParams
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.serving.client import Answer, Prediction
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec
from tao2serve.verify import subjects
from tao2serve.verify.drawing import save_difference
from tao2serve.verify.request import VerifyRequest, decoding_of, limits_for, pictures_of
from tao2serve.verify.subjects import Subject, open_subject
from tao2serve.verify.verification import Verification
from tao2serve.verify.verify import verify

PRUNED = SAMPLE / "pruned"
WEIGHTS = next((PRUNED / "weights").glob("*.hdf5"))


def compared(
    reference: Subject, candidate: Subject, *, images: Path | None = None, labels: Path | None = None, limit: int = 2
) -> Verification:
    decoding = decoding_of(reference, candidate)
    request = VerifyRequest(
        reference=reference,
        candidate=candidate,
        decoding=decoding,
        pictures=pictures_of(images, decoding, labels=labels, limit=limit),
        limits=limits_for(reference, candidate, Settings()),
    )
    with ExitStack() as stack:
        return verify(request, stack=stack)


def opened(path: Path) -> Subject:
    with ExitStack() as stack:
        return open_subject(str(path), Settings(), stack=stack)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(WEIGHTS, output=tmp_path_factory.mktemp("onnx") / "model.onnx").path


def test_an_export_passes_on_real_pictures(exported: Path) -> None:
    """HDF5 and its ONNX: tensors within float noise, every box found again, decoded with the spec beside."""
    result = compared(opened(WEIGHTS), opened(exported), images=SAMPLE / "images")
    assert result.passed
    assert result.boxes.expected > 10
    assert result.boxes.matched_ratio == 1.0
    assert max(tensor.max_abs for tensor in result.tensors) < 1e-5
    assert result.decoded_with.endswith("experiment_spec.txt")
    document = result.to_dict()
    assert document["outcome"] == "ok"
    assert document["reference"]["kind"] == "keras_hdf5"
    assert document["candidate"] == {"name": str(exported), "kind": "onnx", "precision": "fp32"}


def changed(source: Path, target: Path, weight: str, *, factor: float) -> Path:
    model = onnx.load(str(source))
    tensor = next(item for item in model.graph.initializer if item.name == weight)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name=tensor.name))
    onnx.save(model, str(target))
    return target


@pytest.mark.parametrize("reference_is_onnx", [False, True])
def test_the_first_diverging_layer_is_named(tmp_path: Path, exported: Path, reference_is_onnx: bool) -> None:
    """A changed weight fails, whichever kind the reference is, and the layer that holds it is named."""
    other = changed(exported, tmp_path / "changed.onnx", "block_2a_conv_1/kernel:0", factor=1.5)
    result = compared(opened(exported if reference_is_onnx else WEIGHTS), opened(other))
    assert not result.passed
    assert result.first_divergence == "layer block_2a_conv_1"
    assert "is off by" in result.failures[0]
    assert result.to_dict()["outcome"] == "failed"
    turned = compared(opened(other), opened(exported if reference_is_onnx else WEIGHTS))
    assert turned.first_divergence == "layer block_2a_conv_1"


def test_without_a_spec_boxes_are_compared_all_the_same(tmp_path: Path) -> None:
    """TAO's default settings decode both sides alike, and the result says that they did."""
    alone = shutil.copy(WEIGHTS, tmp_path / "model.hdf5")
    result = compared(opened(alone), opened(alone), images=SAMPLE / "images")
    assert result.passed
    assert result.boxes.expected > 0
    assert "default" in result.decoded_with


def test_labels_add_accuracy(exported: Path) -> None:
    """Average precision of both sides, class by class, against KITTI labels; the pictures are easy ones."""
    result = compared(opened(WEIGHTS), opened(exported), images=SAMPLE / "images", labels=SAMPLE / "labels", limit=10)
    assert result.accuracy is not None
    document = result.to_dict()["accuracy"]
    assert document["images"] == 10
    assert [entry["name"] for entry in document["classes"]] == ["car", "person", "road_sign"]
    assert document["mean_average_precision"]["reference"] > 0.9
    assert abs(document["drop"]) < 1e-6
    assert "mAP" in summary(result)


def test_lost_accuracy_is_said_plainly(tmp_path: Path, exported: Path) -> None:
    """A candidate that misses objects is told to be below its reference, in points of mAP."""
    other = changed(exported, tmp_path / "weak.onnx", "output_bbox/kernel:0", factor=0.6)
    result = compared(opened(WEIGHTS), opened(other), images=SAMPLE / "images", labels=SAMPLE / "labels", limit=10)
    assert result.accuracy is not None
    assert result.accuracy.drop > 0.1
    assert any("points below the reference's" in finding for finding in result.findings)


def test_numbers_that_are_none_fail(tmp_path: Path, exported: Path) -> None:
    """A network that overflows never passes, and the JSON document stays JSON."""
    other = changed(exported, tmp_path / "infinite.onnx", "conv1/kernel:0", factor=1e38)
    result = compared(opened(exported), opened(other))
    assert not result.passed
    assert result.to_dict()["tensors"][0]["max_abs"] is None
    assert any("no number" in failure for failure in result.failures)


def test_without_boxes_a_coarse_precision_is_not_judged(tmp_path: Path, exported: Path) -> None:
    """On pictures that show nothing int8 has nothing to be judged by, and the result does not claim that it passed.

    fp16 is near enough to be judged by its tensors, and fails where they point elsewhere.
    """
    half = to_precision(accept_onnx(exported), precision="fp16", output=tmp_path / "half.onnx").path
    assert compared(opened(exported), opened(half)).judged
    blind = compared(opened(exported), replace(opened(half), precision="int8"))
    assert not blind.judged
    assert "UNDECIDED" in summary(blind)
    assert blind.to_dict()["judged"] is False
    seeing = compared(opened(exported), opened(half), images=SAMPLE / "images")
    assert seeing.judged
    broken = changed(exported, tmp_path / "broken.onnx", "block_2a_conv_1/kernel:0", factor=-3.0)
    elsewhere = compared(opened(exported), replace(opened(broken), precision="fp16"))
    assert "cosine" in elsewhere.failures[0]
    assert "UNDECIDED" not in summary(seeing)


def test_a_gpu_that_is_not_there_is_no_cpu(exported: Path) -> None:
    """Asked for CUDA, onnxruntime does not quietly run on the CPU: exit 4 says what is missing."""
    if "CUDAExecutionProvider" in onnxruntime().get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ToolError, match="CUDA"), ExitStack() as stack:
        open_subject(str(exported), Settings(), stack=stack, provider="cuda")


def test_networks_of_different_shapes_are_refused(tmp_path: Path, exported: Path) -> None:
    """Both shapes are shown."""
    file = KerasFile(input_chw=(3, 32, 48))
    file.heads(file.input, 3)
    with pytest.raises(InputError) as caught:
        compared(opened(exported), opened(file.write(tmp_path / "other.hdf5")))
    assert "3x224x384" in caught.value.evidence
    assert "3x32x48" in caught.value.evidence


def test_what_is_named_must_be_there(tmp_path: Path) -> None:
    """Missing files, pictures that are none and limits below one are errors of the user's, named."""
    with pytest.raises(InputError, match=r"missing\.onnx"):
        opened(tmp_path / "missing.onnx")
    with pytest.raises(UsageError, match="grpc://here"), ExitStack() as stack:
        open_subject("grpc://here", Settings(), stack=stack)
    decoding = decoding_of(opened(WEIGHTS), opened(WEIGHTS))
    with pytest.raises(UsageError, match="--limit"):
        pictures_of(SAMPLE / "images", decoding, limit=0)
    with pytest.raises(UsageError, match="--labels"):
        pictures_of(None, decoding, labels=SAMPLE / "labels")
    with pytest.raises(InputError, match="no label file"):
        pictures_of(SAMPLE / "images", decoding, labels=SAMPLE / "images")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        compared(opened(WEIGHTS), opened(WEIGHTS), images=tmp_path)


@pytest.mark.parametrize(
    ("precisions", "tolerance", "ratio"),
    [(("fp32", "fp32"), 1e-3, 0.99), (("fp32", "fp16"), None, 0.99), (("int8", ""), None, 0.9), (("", ""), 1e-3, 0.99)],
)
def test_the_coarser_precision_sets_the_limits(
    precisions: tuple[str, str], tolerance: float | None, ratio: float
) -> None:
    """fp32 is judged by tensors and boxes, fp16 and int8 by boxes alone."""
    sides = [Subject(name=name, kind="onnx", precision=name) for name in precisions]
    limits = limits_for(sides[0], sides[1], Settings())
    assert (limits.tensor_tolerance, limits.matched_ratio) == (tolerance, ratio)


@pytest.fixture
def endpoint(exported: Path) -> Callable[[float], Subject]:
    """An endpoint that answers what the network would, with its boxes moved by some pixels. A fake: no server."""
    network = opened(exported)
    params = decoding_of(opened(WEIGHTS), network).params

    def make(moved: float) -> Subject:
        from tao2serve.runtime import postprocess
        from tao2serve.runtime.preprocess import read_pixels

        def answer(image: bytes) -> Answer:
            pixels, size = read_pixels(image, params)
            assert network.see is not None
            outputs = network.see(pixels[None])
            found = postprocess(outputs.coverage[0], outputs.bbox[0], params, image_size=size)
            predictions = tuple(
                Prediction(
                    bbox=tuple(float(side) + moved for side in box), score=float(score), raw_score=float(raw),
                    class_id=int(kind), label="",
                )
                for box, score, raw, kind in zip(found.xyxy, found.score, found.raw_score, found.class_id, strict=True)
            )  # fmt: skip
            return Answer(
                width=size[0], height=size[1], endpoint="street", version="4", predictions=predictions, timing_ms={},
                document={},
            )  # fmt: skip

        return Subject(name="http://x/serve/street", kind="endpoint", answer=answer, triton="127.0.0.1:1")

    return make


def test_an_endpoint_is_compared_by_its_boxes(endpoint: Callable[[float], Subject]) -> None:
    """Its tensors cannot be seen, and the result says so."""
    result = compared(opened(WEIGHTS), endpoint(0.0), images=SAMPLE / "images")
    assert result.passed
    assert result.tensors == ()
    assert any("no tensors" in finding for finding in result.findings)


def test_an_endpoint_that_moves_boxes_is_told_from_its_network(
    endpoint: Callable[[float], Subject], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the network behind it gives the same tensors, its own pre- or postprocessing is to blame."""
    moved = endpoint(40.0)
    assert compared(opened(WEIGHTS), moved, images=SAMPLE / "images").first_divergence == "boxes"
    behind = replace(opened(exported), name="grpc://127.0.0.1:1/street_4", kind="triton_model", path=None)
    monkeypatch.setattr("tao2serve.verify.verify.network_behind", lambda *_args, **_options: behind)
    result = compared(opened(WEIGHTS), moved, images=SAMPLE / "images")
    assert not result.passed
    assert "preprocessing or decoding" in result.first_divergence


def test_a_triton_that_cannot_be_asked_is_no_obstacle() -> None:
    """Looking behind an endpoint is a help, not a condition."""
    answer = Answer(width=1, height=1, endpoint="e", version="1", predictions=(), timing_ms={}, document={})
    side = Subject(name="http://x", kind="endpoint", triton="127.0.0.1:9")
    with ExitStack() as stack:
        assert subjects.network_behind(side, answer, stack=stack) is None
        assert subjects.network_behind(replace(side, triton=""), answer, stack=stack) is None


def test_what_differs_is_drawn(tmp_path: Path, endpoint: Callable[[float], Subject]) -> None:
    """The picture stands twice beside itself, and boxes without a twin get the colour of warning."""
    result = compared(opened(WEIGHTS), endpoint(40.0), images=SAMPLE / "images", limit=1)
    (worst,) = result.worst_images
    assert result.to_dict()["worst_images"][0]["matched"] < worst.boxes.expected
    source = Path(worst.name)
    drawn = Image.open(save_difference(source.read_bytes(), worst, path=tmp_path / "deep" / "difference.png"))
    with Image.open(source) as original:
        assert drawn.width > 2 * original.width
        assert drawn.height > original.height
    assert (0xD5, 0x5E, 0x00) in {colour for _, colour in drawn.getcolors(maxcolors=1 << 22)}
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        save_difference(source.read_bytes(), worst, path=tmp_path / "file" / "x.png")


@pytest.fixture(scope="module")
def lean(exported: Path) -> Path:
    """The exported sample once more, taking pixels and giving boxes."""
    params = DetectorParams.from_dict(to_params(read_spec(PRUNED / "experiment_spec.txt")))
    return make_lean(
        accept_onnx(exported), output=exported.with_name("lean.onnx"), uint8_input=True, absolute_boxes=True,
        params=params,
    ).path  # fmt: skip


def test_a_lean_graph_equals_the_one_it_was_made_from(exported: Path, lean: Path) -> None:
    """Both ways round: tensors to the last bit, as boxes, and every box; the result says what was compared."""
    for sides in ((opened(exported), opened(lean)), (opened(lean), opened(exported))):
        result = compared(*sides, images=SAMPLE / "images")
        assert result.passed
        assert [tensor.name for tensor in result.tensors] == ["output_cov/Sigmoid:0", "output_boxes"]
        assert [tensor.max_abs for tensor in result.tensors] == [0.0, 0.0]
        assert result.boxes.matched_ratio == 1.0
        assert result.boxes.expected > 5
        assert any("decodes inside" in finding for finding in result.findings)


def test_weights_and_a_lean_graph_agree_as_closely_as_with_the_plain_one(exported: Path, lean: Path) -> None:
    """Boxes are compared on the scale of offsets, so that limits mean what they mean for these."""
    plain, result = (compared(opened(WEIGHTS), opened(side), images=SAMPLE / "images") for side in (exported, lean))
    assert result.passed
    assert result.tensors[0].max_abs == plain.tensors[0].max_abs
    assert result.tensors[1].max_abs == pytest.approx(plain.tensors[1].max_abs, abs=1e-5)
    half = to_precision(accept_onnx(exported), precision="fp16", output=exported.with_name("half.onnx"))
    coarse, seen = (
        compared(side, opened(half.path), images=SAMPLE / "images") for side in map(opened, (exported, lean))
    )
    assert coarse.tensors[1].cosine < 0.99999999
    assert seen.tensors[1].cosine == pytest.approx(coarse.tensors[1].cosine, abs=1e-9)
    twice = compared(opened(lean), opened(lean), images=SAMPLE / "images")
    assert [tensor.max_abs for tensor in twice.tensors] == [0.0, 0.0]


def test_a_lean_graph_of_other_weights_is_told_by_its_layer(exported: Path, lean: Path, tmp_path: Path) -> None:
    """The layers inside keep TensorFlow's names, so the first that differs is named, against either form."""
    model = onnx.load(str(lean))
    for tensor in model.graph.initializer:
        if tensor.name.startswith("block_2a_conv_1/") and len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, str(tmp_path / "other.onnx"))
    other = opened(tmp_path / "other.onnx")
    for side in (opened(WEIGHTS), opened(exported), opened(lean)):
        for pair in ((side, other), (other, side)):
            result = compared(*pair, images=SAMPLE / "images")
            assert not result.passed
            assert result.first_divergence == "layer block_2a_conv_1"


def test_a_graph_that_decodes_otherwise_is_told_by_its_boxes(exported: Path, tmp_path: Path) -> None:
    """Same network, another scale inside: no layer differs, the boxes do. A spec that says otherwise is refused."""
    artifact = accept_onnx(exported)
    params = DetectorParams.from_dict(to_params(read_spec(PRUNED / "experiment_spec.txt")))
    wrong = make_lean(
        artifact, output=tmp_path / "wrong.onnx", absolute_boxes=True, params=replace(params, bbox_scale=20.0)
    )
    # Without a spec the scale that the file states is taken, so that both sides are decoded alike.
    alike = compared(opened(exported), opened(wrong.path), images=SAMPLE / "images")
    assert alike.passed
    assert "bbox scale and offset of" in alike.decoded_with
    with pytest.raises(InputError, match="decodes its boxes otherwise"):
        decoding_of(opened(WEIGHTS), opened(wrong.path))
    model = onnx.load(str(wrong.path))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "silent.onnx"))
    result = compared(opened(WEIGHTS), opened(tmp_path / "silent.onnx"), images=SAMPLE / "images")
    assert not result.passed
    assert result.first_divergence == "tensor output_boxes"


def test_a_gray_network_is_compared_with_its_lean_form(tmp_path: Path) -> None:
    """From the same pixels: luma is made here for the weights and in the graph for the other side."""
    file = KerasFile(input_chw=(1, 48, 64))
    file.heads(file.conv("conv1", file.input, 1, 4, strides=(16, 16)), 4)
    weights = file.write(tmp_path / "gray.hdf5")
    artifact = export_onnx(weights, output=tmp_path / "gray.onnx")
    params = decoding_of(opened(weights), opened(artifact.path)).params
    assert params.channels == 1
    lean = make_lean(artifact, output=tmp_path / "lean.onnx", uint8_input=True, absolute_boxes=True, params=params)
    for pair in ((opened(weights), opened(lean.path)), (opened(lean.path), opened(artifact.path))):
        assert decoding_of(*pair).params.channels == 1
        result = compared(*pair, images=SAMPLE / "images", limit=1)
        assert result.passed
        assert max(tensor.max_abs for tensor in result.tensors) < 1e-4


def test_networks_of_other_sizes_are_still_told_apart(lean: Path, tmp_path: Path) -> None:
    """Also where one side takes pixels."""
    file = KerasFile(input_chw=(3, 48, 64))
    file.heads(file.conv("conv1", file.input, 3, 4, strides=(16, 16)), 4, classes=3)
    other = opened(export_onnx(file.write(tmp_path / "m.hdf5"), output=tmp_path / "m.onnx").path)
    with pytest.raises(InputError, match="different shapes"):
        decoding_of(opened(lean), other)
