"""The tensors an ONNX file stores, wherever in it they are, and the files beside it that may hold them.

ONNX lets a tensor live in another file ("external data") that the model names: a hostile model could so make us,
and later Triton, read any file. What may be named is decided here, before any library looks at the model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
from onnx import ModelProto, TensorProto

from tao2serve.errors import InputError
from tao2serve.export.messages import all_tensors
from tao2serve.export.signature import load_onnx
from tao2serve.tao.source import sha256_of

__all__ = ["check_stored", "content_sha256"]

# numpy's types of the same layout; bfloat16 and the types below one byte have none and keep ONNX's own checks
_TYPES = {
    TensorProto.FLOAT: "<f4",
    TensorProto.UINT8: "u1",
    TensorProto.INT8: "i1",
    TensorProto.UINT16: "<u2",
    TensorProto.INT16: "<i2",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.BOOL: "u1",
    TensorProto.FLOAT16: "<f2",
    TensorProto.DOUBLE: "<f8",
    TensorProto.UINT32: "<u4",
    TensorProto.UINT64: "<u8",
}
# In a Triton repository the weights lie beside files of ours, in a folder Python imports from: weights named
# like one of those would replace it, or be run.
_RESERVED = frozenset({".json", ".onnx", ".pbtxt", ".plan", ".py", ".pyc", ".so", ".txt"})
_ONE_FILE = "save the model as one file (onnx.save_model with save_as_external_data=False)"
_AT_ONCE = 1 << 24  # weights looked at together, so that a large file costs no more memory


def check_stored(path: Path, model: ModelProto) -> tuple[Path, ...]:
    """Check every stored tensor, and return the files that hold some: `path.parent` and the name in the model.

    Raises InputError for a file outside the model's folder or behind a symbolic link, one that is missing or
    too short, a tensor that does not hold the bytes its shape says, and weights that are not finite.
    """
    files: dict[Path, None] = {}
    for tensor in all_tensors(model):
        wanted = _byte_size(path, tensor)
        if tensor.data_location == TensorProto.EXTERNAL:
            file = _file_of(path, tensor)
            files[file] = None
            values = _mapped(path, tensor, file, wanted)
        elif tensor.HasField("raw_data"):
            if wanted not in (None, len(tensor.raw_data)):
                _refuse(path, tensor, "has a tensor of another size than its shape", f"{len(tensor.raw_data)} bytes")
            values = np.frombuffer(tensor.raw_data, _TYPES.get(tensor.data_type, "u1"))
        else:
            values = np.asarray(tensor.float_data or tensor.double_data)
        if not _is_finite(values):
            _refuse(path, tensor, "has weights that are not finite numbers", "nan or inf among its values")
    return tuple(files)


def content_sha256(path: Path, companions: tuple[Path, ...] | None = None) -> str:
    """Return the SHA-256 of an ONNX file; with files beside it that hold its weights, one of all their digests.

    Those are looked for if they are not given. Raises as `check_stored` does.
    """
    if companions is None:
        companions = check_stored(path, load_onnx(path))
    if not companions:
        return sha256_of(path)
    named = sorted((file.relative_to(path.parent).as_posix(), sha256_of(file)) for file in companions)
    lines = [f"{digest} {name}\n" for name, digest in (("", sha256_of(path)), *named)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _refuse(path: Path, tensor: TensorProto, fact: str, evidence: str, hint: str = "") -> NoReturn:
    raise InputError(str(path), fact, evidence=f"tensor {tensor.name[:100]!r}: {evidence}"[:300], hint=hint)


def _byte_size(path: Path, tensor: TensorProto) -> int | None:
    """Return how many bytes the shape takes; None for types that are not looked into."""
    if any(size < 0 for size in tensor.dims):
        _refuse(path, tensor, "has a tensor of a negative size", str(list(tensor.dims)))
    if tensor.data_type not in _TYPES:
        return None
    return int(np.prod(tensor.dims, dtype=object)) * np.dtype(_TYPES[tensor.data_type]).itemsize


def _file_of(path: Path, tensor: TensorProto) -> Path:
    """Return the file that holds an external tensor, a plain one below the model's folder."""
    keys = [entry.key for entry in tensor.external_data]
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    name = PurePosixPath(location)
    # A backslash or a drive means another file on another system, and NUL ends the name for C libraries.
    if not location or name.is_absolute() or ".." in name.parts or set("\\:\0") & set(location) or not name.parts:
        _refuse(path, tensor, "keeps weights outside its own folder", repr(location), _ONE_FILE)
    if len(set(keys)) != len(keys):
        _refuse(path, tensor, "names the file with its weights twice", ", ".join(keys), _ONE_FILE)
    if name.suffix.lower() in _RESERVED:
        _refuse(path, tensor, "keeps weights in a file of a name that is not for weights", repr(location), _ONE_FILE)
    file = path.parent / name
    try:
        if not file.resolve().is_relative_to(path.parent.resolve()):
            _refuse(path, tensor, "keeps weights outside its own folder", repr(location), _ONE_FILE)
        below = [path.parent.joinpath(*name.parts[: count + 1]) for count in range(len(name.parts))]
        if any(part.is_symlink() for part in below):
            _refuse(path, tensor, "keeps weights behind a symbolic link", repr(location), _ONE_FILE)
        if not file.is_file():
            _refuse(path, tensor, "misses a file with its weights", repr(location))
    except (OSError, ValueError) as error:  # a name too long, or not a name to this system
        _refuse(path, tensor, "misses a file with its weights", f"{location[:80]!r}: {error}")
    return file


def _mapped(path: Path, tensor: TensorProto, file: Path, wanted: int | None) -> np.ndarray[Any, Any]:
    """Return an external tensor's values without reading them into memory."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    size = file.stat().st_size
    offset = _number(path, tensor, entries.get("offset", "0"))
    left = size - offset if wanted is None else wanted
    length = _number(path, tensor, entries["length"]) if "length" in entries else left
    if offset + length > size:
        _refuse(path, tensor, "misses some of its weights", f"bytes {offset} to {offset + length} of {size}")
    if wanted not in (None, length):
        _refuse(path, tensor, "has a tensor of another size than its shape", f"{length} bytes")
    if not length:
        return np.empty(0)
    kind = np.dtype(_TYPES.get(tensor.data_type, "u1"))
    return np.memmap(file, kind, mode="r", offset=offset, shape=(length // kind.itemsize,))


def _number(path: Path, tensor: TensorProto, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        _refuse(path, tensor, "has an offset or length that is no number", repr(text))
    return int(text)


def _is_finite(values: np.ndarray[Any, Any]) -> bool:
    """Whether all are finite; a single infinity is a limit, as of Clip, and no weight."""
    if values.dtype.kind != "f":
        return True
    if values.size == 1:
        return not np.isnan(values).any()
    return all(np.isfinite(values[start : start + _AT_ONCE]).all() for start in range(0, values.size, _AT_ONCE))
