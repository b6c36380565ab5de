"""An experiment spec, with a clustering file laid over it where there is one."""

from __future__ import annotations

from pathlib import Path

from tao2serve.tao.clustering_file import read_clustering, with_clustering
from tao2serve.tao.spec import ExperimentSpec, read_spec

__all__ = ["read_experiment"]


def read_experiment(spec: Path, *, clustering: Path | None = None) -> ExperimentSpec:
    """Read a spec, and the clustering file over it. Raises InputError for either."""
    experiment = read_spec(spec)
    return with_clustering(experiment, read_clustering(clustering)) if clustering else experiment
