"""What lies beside a file and belongs to it: whoever reads the file elsewhere must find it there too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tao2serve.errors import Tao2ServeError
from tao2serve.export.engine.record import record_path
from tao2serve.export.signature import load_onnx
from tao2serve.export.stored import check_stored
from tao2serve.registry.source import spec_beside
from tao2serve.tao.reading import clustering_beside

__all__ = ["Companion", "companions_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A file and where it lies: relative to the folder of the file it belongs to, or to the one above."""

    path: Path
    relative: str
    is_above: bool = False


def companions_of(path: Path) -> tuple[Companion, ...]:
    """Return what belongs to a file: of a spec its clustering; of a model its spec, stored tensors, engine's record."""
    found = {companion.path: companion for companion in _companions(path) if companion.path.is_file()}
    return tuple(found.values())


def _companions(path: Path) -> Iterator[Companion]:
    yield _beside(clustering_beside(path))
    if path.suffix.lower() in (".plan", ".engine"):
        yield _beside(record_path(path))
    if path.suffix.lower() == ".onnx":
        for tensors in _stored(path):
            yield Companion(path=tensors, relative=tensors.relative_to(path.parent).as_posix())
    spec = spec_beside(path)
    if spec is not None and spec != path.resolve():
        is_above = spec.parent != path.resolve().parent
        for one in (spec, clustering_beside(spec)):
            yield Companion(path=one, relative=one.name, is_above=is_above)


def _beside(path: Path) -> Companion:
    return Companion(path=path, relative=path.name)


def _stored(path: Path) -> tuple[Path, ...]:
    """Return the files that hold tensors of an ONNX file; of one that is wrong none, the command will say what."""
    try:
        return check_stored(path, load_onnx(path))
    except Tao2ServeError:
        return ()
