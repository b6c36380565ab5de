"""Lean graphs give the bits of TAO's: with the code that serves, at every optimization level, in every precision."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile, tiny_resnet
from onnx import ModelProto, TensorProto, helper
from onnx_files import like_keras2onnx
from PIL import Image
from precision_files import hand_made
from served import Served

from tao2serve.errors import InputError, ParityError, UsageError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import open_model, sample_pixels
from tao2serve.export.inference import onnxruntime
from tao2serve.export.lean import GraphDecoding, check_decoding, decoding_in, lean_signature, make_lean
from tao2serve.export.local import detect
from tao2serve.export.origin import read_origin
from tao2serve.export.parity import prove_lean, prove_parity
from tao2serve.export.precision.nodes import properties
from tao2serve.export.precision.observe import float_tensors, largest_values
from tao2serve.export.precision.ranges import ranges_of
from tao2serve.export.precision.write import Precision, to_precision
from tao2serve.export.recognise import description_of, parameter_count
from tao2serve.images import Pixels, network_input
from tao2serve.runtime import Detections, DetectorParams, postprocess
from tao2serve.runtime.candidates import absolute_boxes
from tao2serve.runtime.preprocess import read_pixels
from tao2serve.runtime.values import ClassParams
from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec
from tao2serve.values import ModelArtifact, ModelSignature

GOLDEN_MODELS = ("resnet18_pruned", "mobilenet_v2", "squeezenet")
VARIANTS: tuple[tuple[Precision, bool], ...] = (("fp32", False), ("fp32", True), ("fp16", True), ("int8", True))


def params_of(signature: ModelSignature, *, scale: float = 35.0, offset: float = 0.5) -> DetectorParams:
    """Settings under which hundreds of cells are candidates, with classes of each clustering."""
    kinds = ("nms", "dbscan", "hybrid")
    return DetectorParams(
        channels=signature.input.shape[0],
        height=signature.height,
        width=signature.width,
        bbox_scale=scale,
        bbox_offset=offset,
        classes=tuple(
            ClassParams(
                name=f"class {n}",
                clustering=kinds[n % 3],
                coverage_threshold=1e-4,
                dbscan_eps=0.5,
                nms_confidence_threshold=1e-4,
            )
            for n in range(signature.class_count)
        ),
    )


def in_precision(artifact: ModelArtifact, precision: Precision, folder: Path, *, fold: bool) -> ModelArtifact:
    """Convert, with ranges from two synthetic pictures where int8 needs them."""
    output, ranges = folder / f"{artifact.path.stem}_{precision}{'_folded' * fold}.onnx", None
    if precision == "int8":
        model = onnx.load(str(artifact.path))
        tensors = float_tensors(model, subject="test")
        images = network_input(sample_pixels(artifact.signature), artifact.signature)
        amax = largest_values(model, tensors, [images], subject="test")
        alive = {name: value for name, value in amax.items() if value}
        ranges = ranges_of(alive, model, subject="test", source="calibration images", method="minmax", images=2)
    return to_precision(artifact, precision=precision, output=output, ranges=ranges, fold=fold)


def lean_of(
    artifact: ModelArtifact, params: DetectorParams, *, pixels: bool = True, boxes: bool = True
) -> ModelArtifact:
    output = artifact.path.with_name(f"{artifact.path.stem}_lean{'_p' * pixels}{'_b' * boxes}.onnx")
    return make_lean(artifact, output=output, uint8_input=pixels, absolute_boxes=boxes, params=params)


def jpeg(seed: int, size: tuple[int, int]) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def as_served(
    artifact: ModelArtifact, bodies: Sequence[bytes], params: DetectorParams, folder: Path
) -> list[Detections]:
    """From image bytes to boxes, all pictures in one batch, by the code that Triton runs."""
    signature = artifact.signature
    read = [read_pixels(body, params) for body in bodies]
    coverage, bbox = Served(artifact, folder).run(network_input(np.stack([p for p, _ in read]), signature))
    return [
        postprocess(
            coverage[n], bbox[n], params, image_size=size, boxes="absolute" if signature.gives_boxes else "offsets"
        )
        for n, (_, size) in enumerate(read)
    ]


def require_equal(ours: Sequence[Detections], theirs: Sequence[Detections]) -> int:
    """Every array of every image, to the last bit; returns how many boxes that were."""
    for a, b in zip(ours, theirs, strict=True):
        for name in ("xyxy", "score", "raw_score", "class_id"):
            first, second = getattr(a, name), getattr(b, name)
            assert first.dtype == second.dtype
            assert first.tobytes() == second.tobytes(), name
    return sum(len(found) for found in ours)


@pytest.mark.parametrize("name", GOLDEN_MODELS)
@pytest.mark.parametrize(("precision", "fold"), VARIANTS)
def test_the_same_detections_from_image_bytes_on(
    golden: Path, tmp_path: Path, name: str, precision: Precision, fold: bool
) -> None:
    """Three pictures in one batch through NVIDIA's reference models, as Triton runs them: not a bit differs."""
    source = export_onnx(golden / "models" / f"{name}.hdf5", output=tmp_path / "model.onnx")
    artifact = in_precision(source, precision, tmp_path, fold=fold)
    params = params_of(artifact.signature)
    bodies = [jpeg(seed, (333, 217)) for seed in range(3)]
    wanted = as_served(artifact, bodies, params, tmp_path)
    for pixels, boxes in ((True, True), (True, False), (False, True)):
        lean = lean_of(artifact, params, pixels=pixels, boxes=boxes)
        assert require_equal(wanted, as_served(lean, bodies, params, tmp_path)) > 10
        assert lean.precision == precision


@pytest.mark.parametrize("run", ["pruned", "unpruned"])
@pytest.mark.parametrize(("precision", "fold"), VARIANTS)
def test_the_sample_sees_the_same_in_real_pictures(tmp_path: Path, run: str, precision: Precision, fold: bool) -> None:
    """The sample detectors with their own spec, on every sample picture."""
    weights = next((SAMPLE / run / "weights").glob("*.hdf5"))
    spec = read_spec(SAMPLE / run / "experiment_spec.txt")
    params = DetectorParams.from_dict(to_params(spec))
    artifact = in_precision(
        export_onnx(weights, output=tmp_path / "model.onnx", spec=spec), precision, tmp_path, fold=fold
    )
    lean = lean_of(artifact, params)
    bodies = [path.read_bytes() for path in pictures()]
    wanted = as_served(artifact, bodies, params, tmp_path)
    assert require_equal(wanted, as_served(lean, bodies, params, tmp_path)) > len(bodies)
    # And here, by the code that `deploy` and `verify` look at pictures with.
    sides = [[detect(open_model(side.path), body, params) for body in bodies[:2]] for side in (artifact, lean)]
    require_equal(*sides)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize(("precision", "fold"), VARIANTS)
@pytest.mark.parametrize("chw", [(3, 32, 48), (1, 32, 48), (3, 37, 51), (1, 45, 33)])
def test_no_optimizer_moves_a_bit(
    tmp_path: Path, level: str, precision: Precision, fold: bool, chw: tuple[int, int, int]
) -> None:
    """Both tensors at each of onnxruntime's levels: colour and gray, sizes that fit the grid and odd ones, a batch."""
    artifact = in_precision(
        export_onnx(tiny_resnet(tmp_path / "m.hdf5", input_chw=chw), output=tmp_path), precision, tmp_path, fold=fold
    )
    params = params_of(artifact.signature, scale=34.7, offset=0.3)
    lean = lean_of(artifact, params)
    pixels = np.random.default_rng(5).integers(0, 256, (3, *chw[1:], 3), dtype=np.uint8)
    coverage, offsets = _run(artifact, network_input(pixels, artifact.signature), level)
    lean_coverage, boxes = _run(lean, pixels, level)
    assert coverage.tobytes() == lean_coverage.tobytes()
    assert np.stack([absolute_boxes(grid, params) for grid in offsets]).tobytes() == boxes.tobytes()


def _run(artifact: ModelArtifact, images: np.ndarray, level: str) -> list[np.ndarray]:
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])
    names = [artifact.signature.coverage.name, artifact.signature.bbox.name]
    return session.run(names, {artifact.signature.input.name: images})


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_value_is_scaled_as_the_code_does(tmp_path: Path, channels: int) -> None:
    """All 256 levels of each colour, and for luma 20,000 colours: what reaches the network has to_tensor's bits."""
    artifact = export_onnx(tiny_resnet(tmp_path / "m.hdf5", input_chw=(channels, 100, 200)), output=tmp_path)
    lean = lean_of(artifact, params_of(artifact.signature))
    model = onnx.load(str(lean.path))
    model.graph.output.append(helper.make_empty_tensor_value_info("input_1:0"))
    levels = np.arange(256, dtype=np.uint8)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 100, 200, 3), dtype=np.uint8)
    pixels[0, :3, :, :] = levels[:200, None]
    pixels[0, 3:6, :56, :] = levels[200:, None]
    session = onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (taken,) = session.run(["input_1:0"], {"pixels": pixels})
    assert taken.tobytes() == network_input(pixels, artifact.signature).tobytes()


def test_a_product_right_behind_the_convolution_would_not_be_exact(golden: Path, tmp_path: Path) -> None:
    """Why there is a Reshape: without it onnxruntime folds the scale into the weights, and boxes move."""
    source = export_onnx(golden / "models" / "mobilenet_v2.hdf5", output=tmp_path / "model.onnx")
    params = params_of(source.signature)
    lean = lean_of(source, params, pixels=False)
    model = onnx.load(str(lean.path))
    classes, rows, columns = source.signature.coverage.shape
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    scale = np.tile(stored["output_boxes/scale"], (classes, 1)).reshape(-1, 1, 1)
    centre = np.tile(stored["output_boxes/centre"].reshape(4, rows, columns), (classes, 1, 1))
    kept = [node for node in model.graph.node if not node.name.startswith("output_boxes/")]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.node.append(helper.make_node("Mul", [source.signature.bbox.name, "s"], ["scaled"]))
    model.graph.node.append(helper.make_node("Add", ["scaled", "c"], ["output_boxes"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale, "s"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(centre, "c"))
    onnx.save(model, str(tmp_path / "fused.onnx"))
    fused = replace(lean, path=tmp_path / "fused.onnx")
    with pytest.raises(ParityError, match="does not give the bits") as caught:
        prove_lean(fused, source, params)
    assert "output_boxes" in caught.value.evidence
    assert "same bits" in prove_lean(lean, source, params)


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    """Signature, metadata, ONNX's own checker; the same source gives the same bytes, and twice is once."""
    artifact = export_onnx(tiny_resnet(tmp_path / "m.hdf5", input_chw=(1, 32, 48)), output=tmp_path)
    params = params_of(artifact.signature, scale=34.7, offset=0.3)
    lean = lean_of(artifact, params)
    assert str(lean.signature) == "32x48x3 uint8 pixels, 2 classes, stride 4, boxes"
    assert (lean.signature.input.name, lean.signature.input.datatype) == ("pixels", "UINT8")
    assert (lean.signature.bbox.name, lean.signature.bbox.datatype) == ("output_boxes", "FP32")
    assert lean.signature.coverage == artifact.signature.coverage
    assert lean.signature == lean_signature(artifact.signature, uint8_input=True, absolute_boxes=True)
    assert accept_onnx(lean.path) == replace(lean, source_sha256=lean.sha256)
    model = onnx.load(str(lean.path))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [item.name for item in model.graph.output] == ["output_cov/Sigmoid:0", "output_boxes"]
    said = properties(model)
    assert said["tao2serve.made_from_sha256"] == artifact.sha256
    assert said["tao2serve.source_sha256"] == artifact.source_sha256
    assert (said["tao2serve.channels"], said["tao2serve.bbox_scale"], said["tao2serve.bbox_offset"]) == (
        "1", "34.7", "0.3",
    )  # fmt: skip
    assert decoding_in(model) == GraphDecoding(bbox_scale=34.7, bbox_offset=0.3)
    assert {"input_1:0", "output_bbox/BiasAdd:0"} <= {name for node in model.graph.node for name in node.output}
    again = make_lean(artifact, output=tmp_path / "b.onnx", uint8_input=True, absolute_boxes=True, params=params)
    assert again.sha256 == lean.sha256
    assert make_lean(lean, output=tmp_path / "c.onnx", uint8_input=True, absolute_boxes=True) is lean
    first = lean_of(artifact, params, boxes=False)
    in_steps = make_lean(first, output=tmp_path / "d.onnx", uint8_input=True, absolute_boxes=True, params=params)
    assert in_steps.signature == lean.signature
    assert prove_lean(in_steps, artifact, params)


def test_readers_of_layers_see_taos_graph(golden: Path, tmp_path: Path) -> None:
    """Template, weights and origin of a lean file are those of the graph it was made from."""
    artifact = export_onnx(golden / "models" / "resnet18_pruned.hdf5", output=tmp_path / "m.onnx")
    lean = lean_of(artifact, params_of(artifact.signature))
    models = [onnx.load(str(side.path)) for side in (artifact, lean)]
    assert description_of(models[0], artifact.path) == replace(description_of(models[1], lean.path))
    assert parameter_count(models[0]) == parameter_count(models[1])
    assert (read_origin(lean.path).naming, read_origin(lean.path).exporter) == ("tf2onnx", "tao2serve")


def test_a_wrong_export_stays_known_as_one(tmp_path: Path) -> None:
    """keras2onnx's pads are warned of in the lean file too, whose metadata is ours."""
    source = export_onnx(tiny_resnet(tmp_path / "m.hdf5"), output=tmp_path)
    onnx.save(like_keras2onnx(onnx.load(str(source.path))), str(tmp_path / "k.onnx"))
    artifact = accept_onnx(tmp_path / "k.onnx")
    params = params_of(artifact.signature)
    lean = lean_of(artifact, params)
    assert prove_lean(lean, artifact, params)
    assert read_origin(lean.path).exporter == "keras2onnx"
    assert "keras2onnx" in accept_onnx(lean.path).warnings[0]
    assert lean.warnings == artifact.warnings


def _foreign(kind: int = TensorProto.FLOAT, *, opset: int = 13) -> ModelProto:
    nodes = [helper.make_node("Conv", ["input_1", "w"], ["features"])]
    model = hand_made(nodes, {"w": np.random.default_rng(0).random((4, 3, 1, 1), np.float32)}, opset=opset)
    if kind == TensorProto.FLOAT16:
        for item in (*model.graph.input, *model.graph.output):
            item.type.tensor_type.elem_type = kind
        for item in model.graph.initializer:
            item.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(item).astype(np.float16), item.name))
    return model


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17])
def test_foreign_files_of_any_opset(tmp_path: Path, opset: int) -> None:
    """keras2onnx's names and the opsets exporters have written."""
    onnx.save(_foreign(opset=opset), str(tmp_path / "f.onnx"))
    artifact = accept_onnx(tmp_path / "f.onnx")
    params = params_of(artifact.signature)
    assert prove_lean(lean_of(artifact, params), artifact, params)


@pytest.mark.parametrize(
    ("coverage", "bbox", "naming"),
    [
        ("output_cov/Sigmoid:0", "output_bbox/BiasAdd:0", "tf2onnx"),
        ("output_cov/Sigmoid", "output_bbox/BiasAdd", "tensorrt"),
        ("output_cov", "output_bbox", "keras2onnx"),
    ],
)
def test_every_naming_scheme(tmp_path: Path, coverage: str, bbox: str, naming: str) -> None:
    """Under any of TAO's names, with the grid's size and the batch left open in the file."""
    model = _foreign()
    for node in model.graph.node:
        node.output[:] = [{"output_cov": coverage, "output_bbox": bbox}.get(name, name) for name in node.output]
    for item, name in zip(model.graph.output, (coverage, bbox), strict=True):
        item.name = name
        for dim in item.type.tensor_type.shape.dim:
            dim.Clear()
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    onnx.save(model, str(tmp_path / "f.onnx"))
    artifact = accept_onnx(tmp_path / "f.onnx")
    params = params_of(artifact.signature)
    lean = lean_of(artifact, params)
    assert read_origin(lean.path).naming == read_origin(artifact.path).naming == naming
    assert lean.signature.coverage.name == coverage
    assert prove_lean(lean, artifact, params)


def test_half_precision_at_the_border(tmp_path: Path) -> None:
    """A file that takes and gives float16 decodes in float32, as the code does."""
    onnx.save(_foreign(TensorProto.FLOAT16), str(tmp_path / "f.onnx"))
    artifact = accept_onnx(tmp_path / "f.onnx")
    assert artifact.signature.input.datatype == "FP16"
    params = params_of(artifact.signature)
    lean = lean_of(artifact, params)
    assert lean.signature.bbox.datatype == "FP32"
    assert prove_lean(lean, artifact, params)


def test_weights_beside_the_file_are_taken_in(tmp_path: Path) -> None:
    """ONNX external data: the lean file is one file, and gives the same bits."""
    source = export_onnx(tiny_resnet(tmp_path / "m.hdf5"), output=tmp_path)
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save_model(
        onnx.load(str(source.path)), str(folder / "e.onnx"), save_as_external_data=True, location="e.bin",
        size_threshold=0,
    )  # fmt: skip
    artifact = accept_onnx(folder / "e.onnx")
    assert artifact.companions
    params = params_of(artifact.signature)
    lean = lean_of(artifact, params)
    moved = tmp_path / "alone" / "lean.onnx"
    moved.parent.mkdir()
    shutil.copyfile(lean.path, moved)
    assert accept_onnx(moved).companions == ()
    assert prove_lean(replace(lean, path=moved), artifact, params)


def _taken_names(model: ModelProto) -> None:
    model.graph.node[0].output[0] = "output_boxes/scale"
    for node in model.graph.node[1:]:
        node.input[:] = ["output_boxes/scale" if name == "features" else name for name in node.input]


@pytest.mark.parametrize(
    ("opset", "change", "fact"),
    [(6, lambda _: None, "too old"), (13, _taken_names, "already, whose name is needed")],
)
def test_graphs_that_cannot_be_lean(
    tmp_path: Path, opset: int, change: Callable[[ModelProto], None], fact: str
) -> None:
    """Operators that broadcast otherwise, and names that are in use, are refused in words."""
    model = _foreign(opset=opset)
    change(model)
    onnx.save(model, str(tmp_path / "f.onnx"))
    artifact = accept_onnx(tmp_path / "f.onnx")
    with pytest.raises(InputError, match=fact):
        lean_of(artifact, params_of(artifact.signature))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.onnx"]


def test_boxes_need_the_settings_of_this_network(tmp_path: Path) -> None:
    """Without params, or with those of another size or class count, nothing is decoded."""
    artifact = export_onnx(tiny_resnet(tmp_path / "m.hdf5"), output=tmp_path)
    with pytest.raises(UsageError, match="bbox scale and offset"):
        make_lean(artifact, output=tmp_path / "x.onnx", absolute_boxes=True)
    params = params_of(artifact.signature)
    for other in (replace(params, width=64), replace(params, classes=params.classes[:1])):
        with pytest.raises(InputError, match="another network"):
            make_lean(artifact, output=tmp_path / "x.onnx", absolute_boxes=True, params=other)
    assert make_lean(artifact, output=tmp_path / "x.onnx", uint8_input=True).signature.takes_pixels


def test_a_lean_graph_keeps_its_precision(tmp_path: Path) -> None:
    """float16 cannot hold pixel positions, so what is lean is not converted any more."""
    artifact = export_onnx(tiny_resnet(tmp_path / "m.hdf5"), output=tmp_path)
    for pixels, boxes in ((True, False), (False, True)):
        lean = lean_of(artifact, params_of(artifact.signature), pixels=pixels, boxes=boxes)
        with pytest.raises(InputError, match="lean graph") as caught:
            to_precision(lean, precision="fp16", output=tmp_path / "half.onnx")
        assert "made from" in caught.value.hint


def test_a_spec_that_decodes_otherwise_is_not_its_spec(tmp_path: Path) -> None:
    """The scale in the graph is held against the spec's: served with another one, only the report would be wrong."""
    weights = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"))
    text = (SAMPLE / "pruned" / "experiment_spec.txt").read_text()
    spec = read_spec(SAMPLE / "pruned" / "experiment_spec.txt")
    artifact = export_onnx(weights, output=tmp_path / "m.onnx", spec=spec)
    lean = lean_of(artifact, DetectorParams.from_dict(to_params(spec)))
    assert accept_onnx(lean.path, spec=spec).signature.gives_boxes
    (tmp_path / "other.txt").write_text(text.replace("scale: 35.0", "scale: 20.0"))
    other = read_spec(tmp_path / "other.txt")
    with pytest.raises(InputError, match="decodes its boxes otherwise") as caught:
        accept_onnx(lean.path, spec=other)
    assert "35 and 0.5" in caught.value.evidence
    check_decoding(None, other, subject="says nothing")


def test_a_gray_spec_belongs_to_a_graph_that_takes_pixels(tmp_path: Path) -> None:
    """How many channels the network has does not show in pixels; another size is refused as before."""
    text = (SAMPLE / "pruned" / "experiment_spec.txt").read_text()
    size = read_spec(SAMPLE / "pruned" / "experiment_spec.txt").input
    gray = tmp_path / "gray.txt"
    gray.write_text(text.replace("output_image_channel: 3", "output_image_channel: 1"))
    assert read_spec(gray).input.channels == 1
    artifact = _strided(tmp_path, (1, size.height, size.width))
    lean = lean_of(artifact, params_of(artifact.signature))
    assert accept_onnx(lean.path, spec=read_spec(gray)).signature.takes_pixels
    smaller = _strided(tmp_path, (1, size.height // 2, size.width))
    other = lean_of(smaller, params_of(smaller.signature))
    with pytest.raises(InputError, match="does not belong"):
        accept_onnx(other.path, spec=read_spec(gray))


def _strided(folder: Path, chw: tuple[int, int, int]) -> ModelArtifact:
    """A detector of three classes at stride 16."""
    file = KerasFile(input_chw=chw)
    file.heads(file.conv("conv1", file.input, chw[0], 4, kernel=(3, 3), strides=(16, 16)), 4, classes=3)
    return export_onnx(file.write(folder / f"{chw[1]}.hdf5"), output=folder)


@pytest.mark.parametrize(
    ("name", "kind", "shape", "fact"),
    [
        ("input_1", TensorProto.UINT8, [16, 24, 3], "channels first"),
        ("input_1", TensorProto.UINT8, [3, 16, 24], "floating point"),
        ("pixels", TensorProto.UINT8, [3, 16, 24], "does not take pixels as"),
        ("pixels", TensorProto.INT8, [3, 16, 24], "floating point"),
        ("pixels", TensorProto.FLOAT, [16, 24, 3], "channels first"),
    ],
)
def test_bytes_are_taken_under_one_name_and_shape(
    tmp_path: Path, name: str, kind: int, shape: list[int], fact: str
) -> None:
    """A uint8 input is one of pixels exactly if it is named so and is (H, W, 3)."""
    model = _foreign()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info(name, kind, ["N", *shape]))
    model.graph.node[0].input[0] = name
    onnx.save(model, str(tmp_path / "f.onnx"))
    with pytest.raises(InputError, match=fact):
        accept_onnx(tmp_path / "f.onnx")


def test_floats_named_pixels_are_floats(tmp_path: Path) -> None:
    """A foreign network whose float input has that name is what it was: an ordinary one."""
    model = _foreign()
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    onnx.save(model, str(tmp_path / "f.onnx"))
    signature = accept_onnx(tmp_path / "f.onnx").signature
    assert not signature.takes_pixels
    assert (signature.width, signature.height) == (24, 16)


def test_a_batch_fixed_in_a_lean_graph_is_refused_too(tmp_path: Path) -> None:
    """As in any other: Triton could batch nothing."""
    artifact = export_onnx(tiny_resnet(tmp_path / "m.hdf5"), output=tmp_path)
    lean = lean_of(artifact, params_of(artifact.signature))
    model = onnx.load(str(lean.path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(lean.path))
    with pytest.raises(InputError, match="batch size fixed to 1"):
        accept_onnx(lean.path)


def test_a_lean_file_is_a_source_like_any_other(tmp_path: Path) -> None:
    """It is accepted where it lies and run once, alone and in a batch."""
    artifact = export_onnx(tiny_resnet(tmp_path / "m.hdf5"), output=tmp_path)
    lean = accept_onnx(lean_of(artifact, params_of(artifact.signature)).path)
    assert prove_parity(lean, lean.path) == "the file is served as it is"


@pytest.mark.parametrize("wrong", [(1, 32, 47, 3), (32, 48, 3), (0, 32, 48, 3), (1, 3, 32, 48)])
def test_pixels_of_another_size_are_refused(tmp_path: Path, wrong: tuple[int, ...]) -> None:
    """By TAO's graph and the lean one alike; floats are no pixels."""
    artifact = export_onnx(tiny_resnet(tmp_path / "m.hdf5"), output=tmp_path)
    lean = lean_of(artifact, params_of(artifact.signature))
    for model in (open_model(artifact.path), open_model(lean.path)):
        with pytest.raises(InputError, match="cannot take these pixels"):
            model.see(np.zeros(wrong, np.uint8))
        floats: Pixels = np.zeros((1, 32, 48, 3), np.float32)  # type: ignore[assignment]
        with pytest.raises(InputError, match="cannot take these pixels"):
            model.see(floats)
    with pytest.raises(InputError, match="cannot take these images") as caught:
        open_model(lean.path).run(np.zeros((1, 32, 48, 3), np.float32))
    assert "(N, 32, 48, 3) of uint8" in caught.value.evidence
