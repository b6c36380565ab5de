"""The record beside a plan: what built it, of what, for which GPU; a plan itself tells almost nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tao2serve.errors import InputError
from tao2serve.export.engine.dialect import same_version
from tao2serve.export.engine.machine import Machine
from tao2serve.values import ModelSignature, Tensor

__all__ = ["EngineRecord", "caution", "misfit", "read_record", "record_path"]

_LARGEST: Final = 1 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """How a plan came to be; "" where nothing was known.

    `cuda_version` is the newest CUDA that the driver of the building machine ran.
    """

    tensorrt_version: str
    builder: str  # tensorrt | trtexec
    cuda_version: str
    driver_version: str
    gpu_name: str
    compute_capability: str
    platform: str
    precision: str
    strongly_typed: bool
    ampere_plus: bool
    min_batch: int
    opt_batch: int
    max_batch: int
    signature: ModelSignature
    workspace_bytes: int
    onnx_name: str
    onnx_sha256: str
    source_sha256: str
    plan_sha256: str
    created_at: str  # ISO 8601, UTC
    build_s: float
    tao2serve_version: str

    def to_json(self) -> bytes:
        """Return the file's content; the same record gives the same bytes."""
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()


def record_path(plan: Path) -> Path:
    """Return where the record of a plan lies: `model.plan` has `model.plan.json`."""
    return plan.with_name(plan.name + ".json")


def read_record(path: Path) -> EngineRecord:
    """Read a record; unknown members are ignored. Raises InputError for a wrong or missing one."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise InputError(str(path), "is too large for the record of an engine")
        document = json.loads(content)
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "is not JSON", evidence=str(error)[:200]) from error
    if not isinstance(document, dict):
        raise InputError(str(path), "is not the record of an engine", evidence="it is no JSON object")
    return _record(document, path)


def misfit(record: EngineRecord, here: Machine) -> str | None:
    """Say in words why a plan does not load on a machine; None if nothing known speaks against it."""
    built = record.tensorrt_version
    if here.tensorrt_version and not same_version(built, here.tensorrt_version):
        return f"it was built by TensorRT {built}, and TensorRT {here.tensorrt_version} is here"
    if here.platform and record.platform and here.platform != record.platform:
        return f"it was built on {record.platform}, and this is {here.platform}"
    capability, wanted = here.compute_capability, record.compute_capability
    if not capability or not wanted or capability == wanted:
        return None
    if record.ampere_plus and min(_major(capability), _major(wanted)) >= 8:
        return None
    return (
        f"it was built for compute capability {wanted} ({record.gpu_name}), "
        f"and this GPU has {capability} ({here.gpu_name})"
    )


def caution(record: EngineRecord, here: Machine) -> str | None:
    """Say what makes a plan that fits doubtful: another GPU model is no misfit, and TensorRT warns of it."""
    if here.gpu_name and record.gpu_name and here.gpu_name != record.gpu_name:
        return f"it was built on {record.gpu_name}, this is {here.gpu_name}: it may be slower here, or fail"
    if here.gpu_name and not record.gpu_name:
        return "its record names no GPU: whether it loads on this one shows only when it is loaded"
    return None


def _major(capability: str) -> int:
    digits = capability.partition(".")[0]
    return int(digits) if digits.isdecimal() else 0


def _record(document: Mapping[str, Any], path: Path) -> EngineRecord:
    def text(name: str) -> str:
        return _member(document, name, str, path)

    def number(name: str) -> int:
        return _member(document, name, int, path)

    return EngineRecord(
        tensorrt_version=text("tensorrt_version"),
        builder=text("builder"),
        cuda_version=text("cuda_version"),
        driver_version=text("driver_version"),
        gpu_name=text("gpu_name"),
        compute_capability=text("compute_capability"),
        platform=text("platform"),
        precision=text("precision"),
        strongly_typed=_member(document, "strongly_typed", bool, path),
        ampere_plus=_member(document, "ampere_plus", bool, path),
        min_batch=number("min_batch"),
        opt_batch=number("opt_batch"),
        max_batch=number("max_batch"),
        signature=_signature(_member(document, "signature", dict, path), path),
        workspace_bytes=number("workspace_bytes"),
        onnx_name=text("onnx_name"),
        onnx_sha256=text("onnx_sha256"),
        source_sha256=text("source_sha256"),
        plan_sha256=text("plan_sha256"),
        created_at=text("created_at"),
        build_s=_member(document, "build_s", float, path),
        tao2serve_version=text("tao2serve_version"),
    )


def _signature(document: Mapping[str, Any], path: Path) -> ModelSignature:
    parts = {name: _tensor(_member(document, name, dict, path), path) for name in ("input", "coverage", "bbox")}
    return ModelSignature(**parts)


def _tensor(document: Mapping[str, Any], path: Path) -> Tensor:
    shape = _member(document, "shape", list, path)
    if len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
        raise InputError(str(path), "has a tensor without three sizes behind N", evidence=repr(shape)[:200])
    return Tensor(
        name=_member(document, "name", str, path),
        datatype=_member(document, "datatype", str, path),
        shape=tuple(shape),
    )


def _member(document: Mapping[str, Any], name: str, kind: type[_T], path: Path) -> _T:
    """Return a member of exactly that type; whole numbers pass as float. Raises InputError."""
    value = document.get(name)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise InputError(
            str(path),
            f"is not the record of an engine: {name} is not {kind.__name__}",
            evidence="it is missing" if name not in document else f"it is {value!r}"[:200],
        )
    return value
