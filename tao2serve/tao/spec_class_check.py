"""Whether all sections of a training spec speak of the same target classes, and each has its clustering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tao2serve.tao.spec_findings import Finding, Stage
from tao2serve.tao.spec_view import View

__all__ = ["check_classes"]


def check_classes(root: View) -> Iterator[Finding]:
    """Yield what does not fit the classes of `cost_function_config`, which are the channels of the network."""
    cost = root.message("cost_function_config")
    targets = cost.messages("target_classes")
    names = [target.text("name") for target in targets]
    if cost.exists and not names:
        return  # that it is missing is said of TAO's own tables
    for target, name in zip(targets, names, strict=True):
        if Counter(names)[name] > 1 and name:
            yield Finding(
                severity="error", stage="training", field=target.at("name"), line=target.line_of("name"),
                problem=f"names {name!r}, which another target class is named too",
                why="TAO keys all it knows of a class by its name: one of the two channels is never trained",
                remedy="take one of the two target_classes out",
            )  # fmt: skip
    classes = list(dict.fromkeys(name for name in names if name))
    yield from _mapping(root.message("dataset_config"), classes)
    yield from _rasterizer(root.message("bbox_rasterizer_config"), classes)
    yield from _evaluation(root.message("evaluation_config"), classes)
    yield from check_clustering(root.message("postprocessing_config"), "target_class_config", classes, algorithms=True)


def _mapping(dataset: View, classes: list[str]) -> Iterator[Finding]:
    if not dataset.has("target_class_mapping"):
        return
    mapping = dataset.entries("target_class_mapping")
    for key, entry in mapping.items():
        target = entry.text("value")
        if target not in classes:
            yield Finding(
                severity="error", stage="training", field=entry.at("value"), line=entry.line_of("value"),
                problem=f"maps {key!r} to {target!r}, which is no target class ({', '.join(classes)})",
                why="objects of it are in no channel: they are trained as background",
                remedy=f"write one of the target classes, or add {target!r} to cost_function_config.target_classes",
            )  # fmt: skip
        if key != key.lower():
            yield Finding(
                severity="warning", stage="training", field=entry.at("key"), line=entry.line_of("key"),
                problem=f"is {key!r}, with capital letters",
                why="TAO's dataset converter makes the names in labels lower case, so this entry maps nothing",
                remedy=f"write {key.lower()!r}",
            )  # fmt: skip
    for name in classes:
        keys = [key for key, entry in mapping.items() if entry.text("value") == name]
        if not any(key == key.lower() for key in keys):
            yield Finding(
                severity="error", stage="training", field=dataset.at("target_class_mapping"),
                line=mapping[keys[0]].line if keys else dataset.line,
                problem=f"maps no name of the labels to {name!r}" + (" that a label can have" if keys else ""),
                why="its channel is trained without one object, and its AP of 0 lowers the mean",
                remedy=f'add target_class_mapping {{ key: "{name.lower()}" value: "{name}" }}',
            )  # fmt: skip


def _rasterizer(section: View, classes: list[str]) -> Iterator[Finding]:
    yield from _keyed(
        section, "target_class_config", classes, stage="training",
        why="TAO ends in an AssertionError before the first epoch", inside="value { cov_center_x: 0.5 … }",
    )  # fmt: skip


def _evaluation(section: View, classes: list[str]) -> Iterator[Finding]:
    for name, inside in (
        ("minimum_detection_ground_truth_overlap", "value: 0.5"),
        ("evaluation_box_config", "value { minimum_height: … }"),
    ):
        yield from _keyed(
            section, name, classes, stage="training",
            why="TAO ends in a ValueError before the first epoch", inside=inside,
        )  # fmt: skip


def _keyed(
    section: View, name: str, classes: list[str], *, stage: Stage, why: str, inside: str, fallback: str = ""
) -> Iterator[Finding]:
    """Hold a map's keys against the classes; `fallback` is a key that serves for all."""
    if not section.has(name):
        return
    entries = section.entries(name)
    for missing in (name for name in classes if name not in entries and fallback not in entries):
        yield Finding(
            severity="error", stage=stage, field=section.at(name), line=section.line_of(name),
            problem=f"has no entry for target class {missing!r}", why=why,
            remedy=f'add {name} {{ key: "{missing}" {inside} }}',
        )  # fmt: skip
    for key, entry in entries.items():
        if key not in classes and key != (fallback or None):
            yield Finding(
                severity="warning", stage=stage, field=entry.at("key"), line=entry.line_of("key"),
                problem=f"is {key!r}, which is no target class ({', '.join(classes)})",
                why="nothing reads this entry", remedy="correct the name, or take the entry out",
            )  # fmt: skip
    seen = Counter(entry.text("key") for entry in section.messages(name))
    for key in (key for key, count in seen.items() if count > 1):
        yield Finding(
            severity="warning", stage=stage, field=entries[key].path, line=entries[key].line,
            problem=f"is given {seen[key]} times", why="the last one counts, the others are not read",
            remedy="keep one",
        )  # fmt: skip


def check_clustering(
    section: View, name: str, classes: list[str], *, algorithms: bool, fallback: str = ""
) -> Iterator[Finding]:
    """Yield what keeps boxes of a class from being formed; with `algorithms` also what only training refuses."""
    yield from _keyed(
        section, name, classes, stage="serving", fallback=fallback,
        why="boxes of it cannot be formed: evaluation and serving refuse", inside="value { clustering_config { … } }",
    )  # fmt: skip
    for entry in section.entries(name).values():
        value = entry.message("value")
        clustering = value.message("clustering_config")
        if not clustering.exists:
            yield Finding(
                severity="error", stage="serving", field=value.at("clustering_config"), line=entry.line,
                problem="is missing", why="coverage_threshold and dbscan_eps read as 0: every cell is a box of its own",
                remedy="add clustering_config { clustering_algorithm: DBSCAN … }",
            )  # fmt: skip
            continue
        yield from _usable(clustering, algorithms=algorithms)


def _usable(clustering: View, *, algorithms: bool) -> Iterator[Finding]:
    algorithm = clustering.text("clustering_algorithm")
    if algorithms and algorithm in ("HYBRID", "2"):
        yield Finding(
            severity="error", stage="training", field=clustering.at("clustering_algorithm"),
            line=clustering.line_of("clustering_algorithm"), problem="is HYBRID",
            why="TAO's training ends in a NotImplementedError when it first evaluates; only inference takes HYBRID",
            remedy="train with DBSCAN, and serve with HYBRID by --clustering or a spec of its own",
        )  # fmt: skip
    if algorithm in ("", "DBSCAN", "0", "HYBRID", "2") and not clustering.number("dbscan_eps"):
        yield Finding(
            severity="warning", stage="serving", field=clustering.at("dbscan_eps"),
            line=clustering.line_of("dbscan_eps"), problem="is 0",
            why="no two cells are neighbours: each makes a box of its own, or none",
            remedy="NVIDIA's tutorials have 0.15 to 0.3",
        )  # fmt: skip
    if not clustering.number("coverage_threshold"):
        yield Finding(
            severity="warning", stage="serving", field=clustering.at("coverage_threshold"),
            line=clustering.line_of("coverage_threshold"), problem="is 0",
            why="every cell with any coverage is a candidate: clustering takes many times as long",
            remedy="NVIDIA's tutorials have 0.005 to 0.0075",
        )  # fmt: skip
