"""How large each tensor gets: what int8 scales are made of, and the files that carry it.

TensorRT's scale is amax / 127. TAO writes it in two ways: a calibration cache (the scale, as float32 bits) and,
for a model trained for quantization, a JSON file of amax; a Keras file of such a model carries amax in its layers.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from onnx import ModelProto

from tao2serve.errors import InputError
from tao2serve.export.precision.fold import FOLDED_PROPERTY
from tao2serve.export.precision.nodes import properties, tensor_names

__all__ = [
    "LEVELS",
    "RangeSource",
    "Ranges",
    "ranges_of",
    "read_calibration_cache",
    "read_qat_scales",
    "read_ranges",
    "scale_of",
]

RangeSource = Literal["calibration images", "TAO calibration cache", "QAT scales"]

LEVELS: Final = 127  # of symmetric int8 on each side of zero
_MAX_BYTES: Final = 16 << 20  # a cache has a line for each tensor: some tens of kilobytes
_MAX_ENTRIES: Final = 100_000
_HEADER: Final = re.compile(r"TRT-\d+-\w+|1")  # TAO's exporter for trained ranges writes a bare 1
_LINE: Final = re.compile(r"(?P<name>.+?)\s*:\s*(?P<bits>[0-9a-fA-F]{1,8})\s*")
# Tensors that are no part of the model: TensorRT's own, and those tf2onnx numbers when it rewrites a graph.
_OTHERS_OWN: Final = re.compile(r"\(Unnamed Layer\*.*|ONNXTRT_.*|.*__\d+(:\d+)?")
# NVIDIA's exporter takes the name from another copy of the layer than the one that it writes to ONNX.
_COPIED_BATCH_NORM: Final = re.compile(r"/batchnorm_\d+/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The largest absolute value of tensors, by their name in the graph before batch norm is folded."""

    amax: Mapping[str, float]  # float64: scale · 127 is exact in it, so a scale survives to the last bit
    source: RangeSource
    method: str  # minmax, entropy, percentile; what a cache's first line says; "training"
    images: int | None = None  # None where the file does not say
    left_out: tuple[str, ...] = ()  # names that are no tensors of the model itself
    notes: tuple[str, ...] = ()  # what to know before these are trusted

    def __str__(self) -> str:
        pictures = f", {self.images} pictures" if self.images is not None else ""
        return f"{self.source} ({self.method}{pictures}), {len(self.amax)} tensors"


def scale_of(amax: float) -> np.float32:
    """Return the step between two int8 levels."""
    return np.float32(amax / LEVELS)


def ranges_of(
    amax: Mapping[str, float],
    model: ModelProto,
    *,
    subject: str,
    source: RangeSource,
    method: str,
    images: int | None = None,
    notes: tuple[str, ...] = (),
) -> Ranges:
    """Hold names and values against the graph; `model` is the one before batch norm is folded.

    A name may lack or carry `:0`, and may spell `/batchnorm_1/` as NVIDIA's exporter does. Raises InputError for
    a value that is no range and for names that are no tensors of the model.
    """
    known = tensor_names(model.graph)
    fixed = {item.name for item in model.graph.initializer}
    found: dict[str, float] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    for name, value in amax.items():
        tensor = _spelled_as(name, known)
        if tensor is None:
            (left_out if _OTHERS_OWN.fullmatch(name) else unknown).append(name)
            continue
        _check(name, value, subject)
        if tensor not in fixed:  # a weight's range is taken from the weight
            found[tensor] = max(value, found.get(tensor, 0.0))
    if unknown or not found:
        _refuse(unknown or list(amax), len(amax), model, subject)
    return Ranges(
        amax=MappingProxyType(found),
        source=source,
        method=method,
        images=images,
        left_out=tuple(left_out),
        notes=notes,
    )


def read_ranges(path: Path, model: ModelProto) -> Ranges:
    """Read a calibration cache or a file of QAT scales, told apart by how it begins. Raises InputError."""
    return (read_qat_scales if _text(path).lstrip().startswith("{") else read_calibration_cache)(path, model)


def read_calibration_cache(path: Path, model: ModelProto) -> Ranges:
    """Read TensorRT's calibration cache: a header, then `tensor: <hex of a float32>`, the bits of amax / 127.

    Raises InputError for a file of another kind, and one that belongs to another model.
    """
    header, *lines = _text(path).splitlines() or [""]
    if not _HEADER.fullmatch(header.strip()):
        raise InputError(
            str(path),
            "is not a calibration cache of TensorRT",
            evidence=f"first line: {header[:80]!r}",
            hint="one begins with a line like TRT-8501-EntropyCalibration2",
        )
    found: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or len(found) >= _MAX_ENTRIES:
            raise InputError(str(path), f"has a line {number} that is no range", evidence=line[:120])
        (scale,) = struct.unpack(">f", bytes.fromhex(match["bits"].zfill(8)))
        found[match["name"]] = scale * LEVELS
    method = header.strip().rpartition("-")[2] if "-" in header else "training"
    return ranges_of(found, model, subject=str(path), source="TAO calibration cache", method=method)


def read_qat_scales(path: Path, model: ModelProto) -> Ranges:
    """Read TAO's JSON of a model trained for quantization, `{"tensor_scales": {tensor: amax}}`.

    Raises InputError for a file of another kind, and one that belongs to another model.
    """
    try:
        document = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "is not JSON", evidence=str(error)[:200]) from error
    scales = document.get("tensor_scales") if isinstance(document, dict) else None
    if not isinstance(scales, dict) or not 0 < len(scales) <= _MAX_ENTRIES:
        raise InputError(str(path), "has no tensor_scales", hint='TAO writes {"tensor_scales": {tensor: amax}}')
    for name, value in scales.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e38:
            raise InputError(str(path), "has a range that is not a number", evidence=f"{name[:100]}: {value!r:.60}")
    amax = {name: float(value) for name, value in scales.items()}
    return ranges_of(amax, model, subject=str(path), source="QAT scales", method="training")


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise InputError(str(path), "is not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    if len(content) > _MAX_BYTES:
        raise InputError(str(path), "is too large for a file of ranges", evidence=f"more than {_MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(str(path), "is not a text file", evidence=str(error)[:200]) from error


def _spelled_as(name: str, known: Iterable[str]) -> str | None:
    """Return the graph's name for `name`, if it has one."""
    plain = name.removesuffix(":0")
    original = _COPIED_BATCH_NORM.sub("/batchnorm/", plain)
    spellings = (name, f"{plain}:0", plain, f"{original}:0", original)
    return next((spelling for spelling in spellings if spelling in known), None)


def _check(name: str, value: float, subject: str) -> None:
    scale = scale_of(value) if np.isfinite(value) else np.float32(np.inf)
    if not np.finfo(np.float32).tiny <= scale <= np.finfo(np.float32).max:
        raise InputError(subject, "has a range that is not a positive number", evidence=f"{name[:100]}: amax {value:g}")


def _refuse(names: list[str], of: int, model: ModelProto, subject: str) -> None:
    shown = ", ".join(name[:80] for name in names[:5]) or "no tensor at all"
    hint = "use the ranges that were made for this very model (same template, same export)"
    if properties(model).get(FOLDED_PROPERTY) == "folded":
        hint = "this model has its batch norm folded, and names are gone with it: give the unfolded one"
    raise InputError(
        subject,
        "belongs to another model: it names tensors the graph does not have",
        evidence=f"{len(names)} of {of}: {shown}",
        hint=hint,
    )
