"""Read a plan file as far as it can be read without TensorRT: its header, and the record beside it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tao2serve.errors import InputError
from tao2serve.export.engine.record import EngineRecord, read_record, record_path
from tao2serve.tao.source import sha256_of
from tao2serve.values import ModelArtifact

__all__ = ["Plan", "header_version", "is_plan", "plan_artifact", "read_plan"]

# As NVIDIA's own trtexec reads them for --getPlanVersionOnly (samples/common/sampleEngines.cpp, printPlanVersion):
# a tag, the serialization's version, and for version 0 TensorRT's major, minor, patch and build in bytes 24 to 27.
_TAG: Final = b"ftrt"
_HEADER: Final = struct.Struct("<4sI16x4B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan file. `header_version` is TensorRT's version as the header has it, "" where its place is not known."""

    path: Path
    sha256: str
    size_bytes: int
    header_version: str
    record: EngineRecord | None


def is_plan(path: Path) -> bool:
    """Whether a file begins like a plan."""
    try:
        if not path.is_file():  # a pipe would keep us waiting
            return False
        with path.open("rb") as file:
            return file.read(len(_TAG)) == _TAG
    except OSError:
        return False


def header_version(head: bytes, *, subject: str) -> str:
    """Return TensorRT's version from the first bytes of a plan. Raises InputError if it is none."""
    if not head.startswith(_TAG):
        raise InputError(subject, "is not a TensorRT plan", evidence=f"it begins with {head[:4]!r}, not {_TAG!r}")
    if len(head) < _HEADER.size:
        raise InputError(subject, "is a truncated TensorRT plan", evidence=f"{len(head)} bytes")
    _, serialization, *version = _HEADER.unpack_from(head)
    # trtexec reads it for plans of TensorRT 8.6 and later only; older ones may keep something else there.
    return ".".join(map(str, version)) if serialization == 0 and version[:2] >= [8, 6] else ""


def read_plan(path: Path) -> Plan:
    """Read a plan's header and record, and hold them against each other.

    Raises InputError for a foreign or truncated file, and for a record of another plan. A plan that is damaged
    further in and has no record passes: only TensorRT can tell.
    """
    if not path.is_file():
        raise InputError(str(path), "is not a file" if path.exists() else "does not exist")
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    version = header_version(head, subject=str(path))
    digest = sha256_of(path)
    beside = record_path(path)
    record = read_record(beside) if beside.is_file() else None
    if record is not None and record.plan_sha256 != digest:
        raise InputError(
            str(path),
            f"is not the plan that {beside.name} describes",
            evidence=f"SHA-256 {digest}, the record has {record.plan_sha256}",
            hint="it is damaged or was replaced: build it again",
        )
    return Plan(path=path, sha256=digest, size_bytes=size, header_version=version, record=record)


def plan_artifact(plan: Plan) -> ModelArtifact:
    """Return a plan as the artifact it was when it was built. Raises InputError if it has no record."""
    if plan.record is None:
        raise InputError(
            str(plan.path),
            "has no record of what it was built from",
            evidence=f"{record_path(plan.path).name} is not beside it",
            hint="build it with tao2serve, or bring the record along",
        )
    return ModelArtifact(
        format="tensorrt_plan",
        path=plan.path,
        sha256=plan.sha256,
        precision=plan.record.precision,
        signature=plan.record.signature,
        source_sha256=plan.record.source_sha256,
        batches=(plan.record.min_batch, plan.record.max_batch),
    )
