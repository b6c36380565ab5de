"""An experiment spec, with a clustering file laid over it where there is one."""

from __future__ import annotations

from pathlib import Path

from tao2serve.tao.clustering_file import read_clustering, with_clustering
from tao2serve.tao.spec import ExperimentSpec, read_spec
from tao2serve.tao.unread_fields import unread_fields

__all__ = ["cautions", "read_experiment"]


def read_experiment(spec: Path, *, clustering: Path | None = None) -> ExperimentSpec:
    """Read a spec, and the clustering file over it. Raises InputError for either."""
    experiment = read_spec(spec)
    return with_clustering(experiment, read_clustering(clustering)) if clustering else experiment


def cautions(spec: ExperimentSpec) -> tuple[str, ...]:
    """Say what a spec, and a clustering file over it, may not mean as it stands: each a sentence for its author."""
    said = [f"{spec.path.name}, {field}" for field in unread_fields(spec.path)]
    over = spec.clustering_file
    if over is not None:
        said += [*over.notes, *(f"{over.path.name}, {field}" for field in unread_fields(over.path))]
        strange = sorted(set(over.handling) - {*spec.classes, "default"})
        if strange:
            said.append(f"{over.path.name} clusters what is no class of the model: {', '.join(strange)}")
        kept = [name for name in spec.classes if name not in over.handling and "default" not in over.handling]
        if kept:
            said.append(f"{over.path.name} says nothing of {', '.join(kept)}: the spec's own clustering stays")
    return tuple(said)
