"""What a file is: a Keras model, an ONNX model, a TensorRT plan or an experiment spec, in facts and findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.encrypted import ENCRYPTED_SUFFIXES, refuse_encrypted
from tao2serve.export.engine.fit import require_fit
from tao2serve.export.engine.machine import Machine, read_machine
from tao2serve.export.engine.plan import Plan, is_plan, read_plan
from tao2serve.export.engine.record import record_path
from tao2serve.export.graph.build import build_onnx
from tao2serve.export.lean import GraphDecoding, check_decoding, decoding_in
from tao2serve.export.origin import origin_of
from tao2serve.export.recognise import description_of, parameter_count
from tao2serve.export.signature import check_against_spec, load_onnx, signature_of
from tao2serve.registry.source import spec_beside
from tao2serve.tao.clustering_file import read_clustering
from tao2serve.tao.describe import ModelDescription, describe
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.notes import notes_on
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import clustering_beside
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import read_spec
from tao2serve.tao.unread_fields import unread_fields
from tao2serve.values import ModelSignature, Tensor

__all__ = ["FileKind", "Inspection", "inspect_file"]

FileKind: TypeAlias = Literal["keras_hdf5", "onnx", "tensorrt_plan", "experiment_spec", "clustering_file"]
TEXT_BYTES: Final = 4096
DEFAULT_LAYERS: Final = 18  # what TAO reads into a spec that names none


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Facts of one file. What a kind of file does not tell is None or empty; `unusual` is in words."""

    path: Path
    kind: FileKind
    sha256: str
    size_bytes: int
    signature: ModelSignature | None = None
    template: str | None = None  # TAO's `arch`
    num_layers: int | None = None
    pruned: bool | None = None
    qat: bool | None = None
    precision: str | None = None
    parameters: int | None = None
    classes: tuple[str, ...] | None = None  # in channel order; None without a spec
    spec: Path | None = None  # the one the classes are from
    facts: Mapping[str, Any] = field(default_factory=dict)  # what only this kind of file tells
    unusual: tuple[str, ...] = ()
    description: ModelDescription | None = None  # of a Keras file

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve inspect`; `shape` leaves out N, which is open."""
        signature = self.signature
        return {
            "outcome": "ok",
            "kind": self.kind,
            "path": str(self.path),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "input": _tensor(signature.input) if signature else self.facts.get("input"),
            "outputs": [_tensor(signature.coverage), _tensor(signature.bbox)] if signature else [],
            "takes": ("pixels" if signature.takes_pixels else "tensor") if signature else None,
            "gives": ("boxes" if signature.gives_boxes else "offsets") if signature else None,
            "stride": signature.stride if signature else None,
            "class_count": signature.class_count if signature else len(self.classes) if self.classes else None,
            "classes": list(self.classes) if self.classes is not None else None,
            "spec": str(self.spec) if self.spec else None,
            "template": self.template,
            "num_layers": self.num_layers,
            "pruned": self.pruned,
            "qat": self.qat,
            "precision": self.precision,
            "parameters": self.parameters,
            **{name: value for name, value in self.facts.items() if name != "input"},
            "unusual": list(self.unusual),
        }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def inspect_file(path: Path, *, spec: Path | None = None) -> Inspection:
    """Read a file and say what it is, by its content; `spec` gives a model's classes, else the one beside it does.

    Raises InputError for a file that is none of the kinds, or damaged, or does not belong to `spec`; ToolError
    for one that only NVIDIA's container opens.
    """
    if not path.is_file():
        raise InputError(str(path), "is a folder, not a file" if path.is_dir() else "does not exist")
    if path.suffix.lower() in ENCRYPTED_SUFFIXES:
        refuse_encrypted(path)
    if is_hdf5(path) or path.suffix.lower() in (".hdf5", ".h5"):
        found = _hdf5(path)
    elif is_plan(path) or path.suffix.lower() in (".plan", ".engine"):
        found = _plan(path)
    elif path.suffix.lower() == ".onnx":
        found = _onnx(path)
    elif _is_text(path):
        if spec is not None:
            raise UsageError("--spec", f"is for a model, and {path} is itself a text")
        return _clustering_file(path) or _spec(path)
    else:
        raise InputError(
            str(path),
            "is no model file or experiment spec",
            evidence="it holds neither text nor HDF5 nor a plan, and its name does not end in .onnx",
        )
    return _with_spec(found, spec)


def _hdf5(path: Path) -> Inspection:
    model = read_keras_hdf5(path)
    description = describe(model)
    signature, unusual = None, []
    try:
        signature = signature_of(build_onnx(model), subject=str(path))
    except InputError as error:
        unusual.append(f"cannot be exported: {error}" + (f" ({error.evidence})" if error.evidence else ""))
    return Inspection(
        path=path,
        kind="keras_hdf5",
        sha256=model.sha256,
        size_bytes=path.stat().st_size,
        signature=signature,
        template=description.template,
        num_layers=description.num_layers,
        pruned=description.pruned,
        qat=description.quantization_aware,
        precision="fp32",
        parameters=description.parameter_count,
        facts={"keras_version": model.keras_version, "layers": len(model.layers), **_settings(description)},
        unusual=(*unusual, *description.unusual),
        description=description,
    )


def _onnx(path: Path) -> Inspection:
    artifact = accept_onnx(path)
    model = load_onnx(path)
    origin = origin_of(model, subject=str(path))
    description = description_of(model, path)
    decoding = decoding_in(model) if artifact.signature.gives_boxes else None
    return Inspection(
        path=path,
        kind="onnx",
        sha256=artifact.sha256,
        size_bytes=path.stat().st_size,
        signature=artifact.signature,
        template=description.template,
        num_layers=description.num_layers,
        pruned=description.pruned,
        precision=artifact.precision,
        parameters=parameter_count(model),
        facts={
            **_settings(description),
            **(asdict(decoding) if decoding else {}),
            "exporter": origin.exporter,
            "producer": origin.producer,
            "naming": origin.naming,
            "opset": origin.opset,
            "ir_version": origin.ir_version,
            "wrong_pads": [str(finding) for finding in origin.pad_findings],
            "nodes": len(model.graph.node),
            "external_data": [str(file) for file in artifact.companions],
            "metadata": {item.key: item.value for item in model.metadata_props},
        },
        unusual=(*artifact.warnings, *description.unusual),
    )


def _settings(description: ModelDescription) -> dict[str, Any]:
    """TAO's settings of the template, as far as they can be told."""
    return {
        "batch_norm": description.batch_norm,
        "use_pooling": description.use_pooling,
        "all_projections": description.all_projections,
    }


def _plan(path: Path) -> Inspection:
    plan, here = read_plan(path), read_machine()
    record = plan.record
    unusual = []
    if record is None:
        unusual.append(f"it has no record ({record_path(path).name}): what it was built from and for is not known")
    fits, trouble = _fits(plan, here)
    unusual += [trouble] if trouble else []
    return Inspection(
        path=path,
        kind="tensorrt_plan",
        sha256=plan.sha256,
        size_bytes=plan.size_bytes,
        signature=record.signature if record else None,
        precision=record.precision if record else None,
        facts={
            "tensorrt_version_in_header": plan.header_version or None,
            "record": asdict(record) if record else None,
            "fits_here": fits,
        },
        unusual=tuple(unusual),
    )


def _fits(plan: Plan, here: Machine) -> tuple[bool | None, str]:
    """Say whether the plan loads on this machine, None where there is nothing to judge by, and what speaks against."""
    try:
        doubts = require_fit(plan, here)
    except InputError as error:
        return False, f"{error.fact}: {error.evidence}; {error.hint}".replace("\n", " ")
    except ToolError:
        return None, ""
    return True, "; ".join(doubts)


def _is_text(path: Path) -> bool:
    """Whether the file begins as text; a spec is text from end to end, and no model is."""
    with path.open("rb") as file:
        beginning = file.read(TEXT_BYTES)
    try:
        beginning.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > TEXT_BYTES - 4 and b"\0" not in beginning  # a character cut in two at the end
    return b"\0" not in beginning


def _clustering_file(path: Path) -> Inspection | None:
    """Return what a clustering file of tao-toolkit-triton-apps says, None for any other text."""
    try:
        found = read_clustering(path)
    except InputError:
        return None
    clustering = [
        {"name": name, **asdict(handling.clustering), "clustering": handling.clustering.algorithm.lower()}
        for name, handling in found.handling.items()
    ]
    return Inspection(
        path=path,
        kind="clustering_file",
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        facts={"stated_stride": found.stride or None, "clustering": clustering},
        unusual=(*found.notes, *unread_fields(path)),
    )


def _spec(path: Path) -> Inspection:
    spec = read_spec(path)
    params = to_params(spec)
    clearml = spec.clearml
    return Inspection(
        path=path,
        kind="experiment_spec",
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        template=spec.arch or None,
        num_layers=(spec.model.num_layers or DEFAULT_LAYERS) if spec.model else None,
        qat=spec.enable_qat if spec.training else None,
        classes=spec.classes,
        facts={
            "spec_kind": spec.kind,
            "input": {"name": None, "datatype": None, "shape": list(params["input"].values())},
            "bbox_scale": params["bbox_scale"],
            "bbox_offset": params["bbox_offset"],
            "clustering": params["classes"],
            "clearml": {"project": clearml.project, "task": clearml.task, "tags": list(clearml.tags)}
            if clearml
            else None,
        },
        unusual=(*_clustering_over(path), *notes_on(spec), *unread_fields(path)),
    )


def _clustering_over(spec: Path) -> tuple[str, ...]:
    beside = clustering_beside(spec)
    return (f"{beside.name} beside it lies over this clustering",) if beside.is_file() else ()


def _with_spec(found: Inspection, spec: Path | None) -> Inspection:
    """Add the classes, from the spec given or the one beside the model; the latter only if it belongs to it."""
    chosen = spec or spec_beside(found.path)
    if chosen is None or found.signature is None:
        return found
    try:
        experiment = read_spec(chosen)
        check_against_spec(found.signature, experiment, subject=str(found.path))
        if "bbox_scale" in found.facts:
            decoding = GraphDecoding(bbox_scale=found.facts["bbox_scale"], bbox_offset=found.facts["bbox_offset"])
            check_decoding(decoding, experiment, subject=str(found.path))
    except InputError as error:
        if spec is not None:
            raise
        reason = f"the spec beside it does not serve: {error.fact} ({error.evidence})"
        return replace(found, unusual=(*found.unusual, reason))
    notes = notes_on(experiment, description=found.description)
    return replace(found, classes=experiment.classes, spec=chosen, unusual=(*found.unusual, *notes))
