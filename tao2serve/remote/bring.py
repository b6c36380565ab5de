"""Bring back what a command left on another machine, to where it would have left it here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import ServiceError
from tao2serve.export.atomic import put_files
from tao2serve.registry.calls import text
from tao2serve.registry.download import download
from tao2serve.remote.bundle import STORE, unpack
from tao2serve.remote.carried import OutputOf
from tao2serve.remote.protocol import output_key
from tao2serve.remote.request import IN, OUT, RemoteCommand, as_here
from tao2serve.steps import Step
from tao2serve.tao.reading import clustering_beside, refuse_other_clustering

__all__ = ["bring_back"]

SPEC: Final = "experiment_spec.txt"  # as `export` leaves it
TEXTS: Final = (".csv", ".html", ".json")


def bring_back(
    command: RemoteCommand, artifacts: Mapping[str, Mapping[str, Any]], sent: Mapping[str, str], step: Step
) -> tuple[Path, ...]:
    """Write the outputs of a run to their paths here, each file in one step, and return them.

    Raises UsageError, before any is written, where the command itself would rather than replace other content; what
    came is then still in ClearML. Raises ServiceError for an output that is not what the worker sent.
    """
    contents: dict[Path, bytes] = {}
    guarded: set[Path] = set()
    with tempfile.TemporaryDirectory(prefix="tao2serve-back-") as folder:
        for index, output in enumerate(command.outputs):
            digest = sent.get(output_key(index))
            if not digest:
                continue
            uri = text(artifacts.get(output_key(index), {}), "uri")
            if not uri:
                raise ServiceError(f"output {output.path}", "is not in ClearML", evidence=f"SHA-256 {digest}")
            source = download(uri, subject=f"output {output.path}", store=STORE, sha256=digest, on_news=step.news)
            found = _files(source, output, Path(folder) / f"{index:02}")
            contents |= found
            if output.guarded:
                guarded |= found.keys()
        contents = {path: _with_own_paths(path, content, command.paths) for path, content in contents.items()}
        inputs = [one.path for one in command.inputs if one.path.is_file()]
        alone = [path for path in guarded if path.name == SPEC and clustering_beside(path) not in contents]
        for spec in alone if not command.force else ():
            refuse_other_clustering(spec)
        put_files({path: contents[path] for path in guarded}, inputs=inputs, force=command.force)
        put_files({path: contents[path] for path in contents.keys() - guarded}, inputs=(), force=True)
        for spec in alone if command.force else ():
            clustering_beside(spec).unlink(missing_ok=True)
    return tuple(sorted(contents))


def _files(source: Path, output: OutputOf, folder: Path) -> dict[Path, bytes]:
    """Return the files of one output by where they go."""
    if output.is_file:
        return {Path(output.path): source.read_bytes()}
    return {Path(output.path) / path.relative_to(folder): path.read_bytes() for path in unpack(source, folder)}


def _with_own_paths(path: Path, content: bytes, paths: Mapping[str, str]) -> bytes:
    """Return a report as it would say where it lies if it had been made here."""
    if path.suffix not in TEXTS or not any(word.encode() in content for word in (IN, OUT)):
        return content
    return str(as_here(content.decode("utf-8", "surrogateescape"), paths)).encode("utf-8", "surrogateescape")
