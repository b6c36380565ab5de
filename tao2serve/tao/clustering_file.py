"""The clustering file of tao-toolkit-triton-apps: per class coverage threshold and DBSCAN settings, and a stride."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tao2serve.errors import InputError
from tao2serve.tao.schema import CLUSTERING_FILE_FIELD
from tao2serve.tao.spec_values import ClassHandling, Clustering, ClusteringFile, ExperimentSpec
from tao2serve.tao.text import parse_message, shortest

__all__ = ["read_clustering", "with_clustering"]


def read_clustering(path: Path) -> ClusteringFile:
    """Read a clustering file into the same values as an experiment spec's clustering.

    Raises InputError for a file that is missing, is not text format, or clusters no class.
    """
    message = parse_message(path, "ClusteringFile")
    entries = getattr(message, CLUSTERING_FILE_FIELD)
    if not len(entries):
        raise InputError(
            str(path),
            "is not a clustering file of tao-toolkit-triton-apps",
            evidence=f"it has no {CLUSTERING_FILE_FIELD}",
            hint="an experiment spec holds its own clustering: give it with --spec alone",
        )
    if message.stride < 0:
        raise InputError(str(path), "has a stride that is no size", evidence=str(message.stride))
    handling = {item.key: _handling(path, item.key, item.value) for item in entries}
    # sklearn, which triton-apps calls, takes the fraction; TAO's own decoding takes at least 1.
    fractions = {
        item.key: min_samples
        for item in entries
        if (min_samples := shortest(item.value.dbscan_config.dbscan_min_samples)) != _whole(min_samples)
    }
    notes = tuple(
        f"{path.name}: dbscan_min_samples {value:g} of class {name} reads as {_whole(value)}, as TAO reads it; "
        "tao-toolkit-triton-apps itself keeps clusters of less coverage"
        for name, value in fractions.items()
    )
    return ClusteringFile(path=path, stride=message.stride, handling=MappingProxyType(handling), notes=notes)


def with_clustering(spec: ExperimentSpec, clustering: ClusteringFile) -> ExperimentSpec:
    """Lay a clustering file over an experiment spec, which keeps its classes and everything else.

    A class takes the file's settings, else the file's `default`, else the spec's own.
    Raises InputError for a class that none of them has.
    """
    handling: dict[str, ClassHandling] = {}
    for name in spec.classes:
        own = spec.handling.get(name) or spec.handling.get("default")
        given = clustering.handling.get(name) or clustering.handling.get("default")
        if given is None and own is None:
            raise InputError(
                str(clustering.path),
                f"has no clustering for class {name}, and neither has {spec.path}",
                evidence=f"the file has: {', '.join(clustering.handling)}",
                hint="add the class, or one with the key default",
            )
        if given is None:
            assert own is not None
            handling[name] = own
        else:
            handling[name] = replace(given, output_map=own.output_map if own else "")
    return replace(spec, handling=MappingProxyType(handling), clustering_file=clustering)


def _handling(path: Path, name: str, entry: Any) -> ClassHandling:
    dbscan, color = entry.dbscan_config, entry.bbox_color
    numbers = (dbscan.dbscan_eps, dbscan.dbscan_min_samples, dbscan.dbscan_confidence_threshold)
    if not all(0 <= number < math.inf for number in (entry.coverage_threshold, *numbers)):
        raise InputError(
            str(path),
            f"has a clustering setting for class {name} that is no usable number",
            evidence=str(entry).replace("\n", " ")[:300],
        )
    return ClassHandling(
        clustering=Clustering(
            algorithm="DBSCAN",
            coverage_threshold=shortest(entry.coverage_threshold),
            minimum_bounding_box_height=entry.minimum_bounding_box_height,
            dbscan_eps=shortest(dbscan.dbscan_eps),
            dbscan_min_samples=_whole(dbscan.dbscan_min_samples),
            dbscan_confidence_threshold=shortest(dbscan.dbscan_confidence_threshold),
            nms_iou_threshold=0.0,
            nms_confidence_threshold=0.0,
        ),
        bbox_color=(color.R, color.G, color.B),
    )


def _whole(min_samples: float) -> int:
    return max(int(min_samples), 1)
