"""The folder package in which an artifact travels to ClearML: the same content is always the same package."""

from __future__ import annotations

import errno
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve import runtime
from tao2serve.errors import ToolError
from tao2serve.values import ModelArtifact

__all__ = ["Package", "pack"]

PARAMS: Final = "params.json"
ORIGINAL: Final = "original.onnx"
MODEL_CODE: Final = "model.py"
# By format: the file's name in the package, as Triton's backends want it.
MODELS: Final = {"onnx": "model.onnx", "tensorrt_plan": "model.plan"}
CODE: Final = Path(runtime.__file__).parent / "triton_model.py"
EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can name
MODE: Final = 0o100644 << 16
LARGE_BYTES: Final = 2**31 - 1
CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A zip file, and the digest of the names and bytes in it, which no time stamp or zip library changes."""

    path: Path
    sha256: str
    bytes: int


def pack(
    artifact: ModelArtifact,
    *,
    params: Mapping[str, Any],
    original: ModelArtifact | None = None,
    target: Path,
) -> Package:
    """Copy an artifact and what belongs to it into the new zip file `target`; the files themselves stay where they are.

    It holds what clearml-serving's Triton controller unpacks into a version folder and Triton loads as it is:
    `model.onnx` with the python backend's `model.py` beside it, or `model.plan`; companions by their relative names;
    `params.json`, which boxes are clustered by; and as `original.onnx` TAO's own graph, where another one made from it
    is served: engines and other precisions start from that. Deterministic: fixed order, times and modes.
    Raises ToolError if there is no room.
    """
    contents: dict[str, Path | bytes] = {MODELS[artifact.format]: artifact.path}
    for companion in artifact.companions:
        contents[companion.relative_to(artifact.path.parent).as_posix()] = companion
    if artifact.format == "onnx":
        contents[MODEL_CODE] = CODE
    if original is not None:
        contents[ORIGINAL] = original.path
    contents[PARAMS] = (json.dumps(params, indent=2) + "\n").encode()
    total = hashlib.sha256()
    try:
        with zipfile.ZipFile(target, "w") as archive:
            for name in sorted(contents):
                total.update(name.encode() + b"\0" + _add(archive, name, contents[name]))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ToolError(
            str(target.parent), "is full", evidence=f"the package {target.name}", hint="make room where TMPDIR says"
        ) from error
    return Package(path=target, sha256=total.hexdigest(), bytes=target.stat().st_size)


def _add(archive: zipfile.ZipFile, name: str, content: Path | bytes) -> bytes:
    """Put one member into the archive, uncompressed since weights do not shrink, and return its SHA-256."""
    entry = zipfile.ZipInfo(name, date_time=EPOCH)
    entry.external_attr = MODE
    if isinstance(content, bytes):
        archive.writestr(entry, content)
        return hashlib.sha256(content).digest()
    digest = hashlib.sha256()
    large = content.stat().st_size > LARGE_BYTES
    with content.open("rb") as source, archive.open(entry, "w", force_zip64=large) as member:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            member.write(chunk)
    return digest.digest()
