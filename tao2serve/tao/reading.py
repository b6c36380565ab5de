"""An experiment spec, with a clustering file laid over it where there is one."""

from __future__ import annotations

from pathlib import Path

from tao2serve.errors import UsageError
from tao2serve.tao.clustering_file import read_clustering, with_clustering
from tao2serve.tao.spec import ExperimentSpec, read_spec
from tao2serve.tao.unread_fields import unread_fields

__all__ = ["cautions", "clustering_beside", "read_experiment", "refuse_other_clustering"]


def read_experiment(spec: Path, *, clustering: Path | None = None) -> ExperimentSpec:
    """Read a spec, and the clustering file over it: the one given, else the one `export` left beside the spec.

    Raises InputError for either.
    """
    experiment = read_spec(spec)
    beside = clustering_beside(spec)
    chosen = clustering or (beside if beside.is_file() else None)
    return with_clustering(experiment, read_clustering(chosen)) if chosen else experiment


def clustering_beside(spec: Path) -> Path:
    """Return where the clustering file of an exported spec lies: `experiment_spec.txt` has `…_clustering.txt`."""
    return spec.with_name(f"{spec.stem}_clustering.txt")


def refuse_other_clustering(spec: Path) -> None:
    """Raise UsageError for a clustering file beside where a spec is to go that has none."""
    beside = clustering_beside(spec)
    if beside.is_file():
        raise UsageError(
            str(beside),
            "is there already, and would change the clustering of this export",
            hint="give it with --clustering, add --force to take it away, or choose another -o DIR",
        )


def cautions(spec: ExperimentSpec) -> tuple[str, ...]:
    """Say what a spec, and a clustering file over it, may not mean as it stands: each a sentence for its author."""
    said = [f"{spec.path.name}, {field}" for field in unread_fields(spec.path)]
    over = spec.clustering_file
    if over is not None:
        if over.path == clustering_beside(spec.path):
            said.append(f"{over.path.name} beside {spec.path.name} lies over its clustering")
        said += [*over.notes, *(f"{over.path.name}, {field}" for field in unread_fields(over.path))]
        strange = sorted(set(over.handling) - {*spec.classes, "default"})
        if strange:
            said.append(f"{over.path.name} clusters what is no class of the model: {', '.join(strange)}")
        kept = [name for name in spec.classes if name not in over.handling and "default" not in over.handling]
        if kept:
            said.append(f"{over.path.name} says nothing of {', '.join(kept)}: the spec's own clustering stays")
    return tuple(said)
