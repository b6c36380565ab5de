"""What is to be built: one ONNX file, for a range of batch sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tao2serve.errors import InputError, UsageError
from tao2serve.export.precision.carried import precision_of
from tao2serve.export.signature import load_onnx
from tao2serve.tao.source import sha256_of
from tao2serve.values import ModelArtifact

__all__ = ["MAX_BATCH", "EngineRequest", "check_artifact"]

MAX_BATCH: Final = 1024  # what Settings.max_batch_size allows
# A timing cache is written over. TensorRT takes any file for a cache of another GPU, weights too.
_OTHER_SUFFIXES: Final = frozenset(
    {".engine", ".etlt", ".h5", ".hdf5", ".jpeg", ".jpg", ".json", ".onnx", ".plan", ".png", ".tlt", ".txt"}
)
_LEAST_WORKSPACE: Final = 1 << 20  # trtexec counts in MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One engine, with one optimisation profile over the batch dimension.

    Raises UsageError for batch sizes that are not 1 <= min <= opt <= max <= 1024, and InputError for an
    artifact that is no ONNX file, and UsageError for a timing cache with the name of a model or a text, which the
    build would replace. `workspace_bytes` limits TensorRT's scratch memory on the GPU. TensorFloat-32
    is switched off, so that fp32 means fp32. With `ampere_plus` the plan runs on every GPU from compute
    capability 8.0 on, at some cost in speed.
    """

    artifact: ModelArtifact
    min_batch: int = 1
    opt_batch: int = 8
    max_batch: int = 8
    workspace_bytes: int = 2 << 30
    timing_cache: Path | None = None  # read if it is there, written after the build
    ampere_plus: bool = False

    def __post_init__(self) -> None:
        batches = (self.min_batch, self.opt_batch, self.max_batch)
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch <= MAX_BATCH:
            raise UsageError(
                "batch sizes of the engine",
                f"must be 1 <= min <= opt <= max <= {MAX_BATCH}",
                evidence="min {}, opt {}, max {}".format(*batches),
            )
        if self.workspace_bytes < _LEAST_WORKSPACE:
            raise UsageError("workspace of the engine", "is under 1 MiB", evidence=f"{self.workspace_bytes} bytes")
        if self.timing_cache is not None and self.timing_cache.suffix.lower() in _OTHER_SUFFIXES:
            raise UsageError(
                str(self.timing_cache),
                "is named as the timing cache, and has the name of another kind of file",
                hint="it is replaced after the build: name one of its own, such as timing.cache",
            )
        if self.artifact.format != "onnx":
            raise InputError(str(self.artifact.path), f"is {self.artifact.format}; an engine is built from ONNX")

    @property
    def batches(self) -> tuple[int, int, int]:
        """Min, opt and max batch size."""
        return self.min_batch, self.opt_batch, self.max_batch

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The input's min, opt and max shape, (N, C, H, W) or, of one that takes pixels, (N, H, W, 3)."""
        return tuple((batch, *self.artifact.signature.input.shape) for batch in self.batches)


def check_artifact(artifact: ModelArtifact) -> None:
    """Raise InputError unless the file is the one the artifact describes, in the precision it claims."""
    if not artifact.path.is_file():
        raise InputError(str(artifact.path), "does not exist")
    found = sha256_of(artifact.path)
    if found != artifact.sha256:
        raise InputError(
            str(artifact.path), "has changed since it was exported", evidence=f"{found}, was {artifact.sha256}"
        )
    carried = precision_of(load_onnx(artifact.path))
    if carried != artifact.precision:
        raise InputError(
            str(artifact.path),
            f"is said to be {artifact.precision}, and carries {carried}",
            hint="an engine has the precision of its ONNX file: convert that first",
        )
