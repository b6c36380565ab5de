"""Whatever a spec looks like, writing ClearML tracking into it changes its tracking and not one byte else."""

from __future__ import annotations

import difflib
import re
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from tao2serve.tao.schema import new_message
from tao2serve.tao.spec_patch import TrackingPatch, patch_spec
from tao2serve.tao.spec_tree import parse_tree

NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F).filter(str.isprintable), min_size=3, max_size=12)
PROJECTS = NAMES.map(lambda name: name.replace("/", "_")).filter(lambda name: len(name.strip()) >= 3)
TAGS = st.lists(NAMES.filter(str.strip), max_size=3)
NOISE = st.sampled_from(["", "  # braces { in } a comment\n", '# "quote\n', "\n\n", " \t"])
STRINGS = st.sampled_from(['"a"', "'b { c'", '"d } \\" e"', '"f" "g"', '"# no comment"', '"\u00fc"'])


@st.composite
def message(draw: st.DrawFn, name: str, fields: list[str]) -> str:
    """One message of these fields, written in any way text format allows."""
    opening, closing = draw(st.sampled_from([("{", "}"), ("<", ">")]))
    colon = draw(st.sampled_from(["", ":", " : ", " "]))
    layout = draw(st.sampled_from(["line", "lines", "brace below"]))
    if layout == "line":
        return f"{name}{colon}{opening} {' '.join(fields)} {closing}"
    separator = draw(st.sampled_from(["", ",", ";", "  # tail }"]))
    indent = draw(st.sampled_from(["  ", "\t", ""]))
    inside = "\n".join(indent + line for field in fields for line in f"{field}{separator}".split("\n"))
    below = "\n" if layout == "brace below" else ""
    return f"{name}{colon}{below}{opening}{draw(NOISE)}\n{inside}\n{closing}"


@st.composite
def clearml(draw: st.DrawFn) -> str:
    tags = draw(st.lists(STRINGS, max_size=3))
    as_list = draw(st.booleans())
    fields = [f"tags: [{', '.join(tags)}]"] if as_list else [f"tags: {tag}" for tag in tags]
    for name in ("project", "task"):
        fields += [f"{name}: {draw(STRINGS)}"] * draw(st.integers(0, 2))
    fields += draw(st.sampled_from([[], ["reuse_last_task_id: true"]]))
    return draw(message("clearml_config", draw(st.permutations(fields))))


@st.composite
def specs(draw: st.DrawFn) -> str:
    visualizers = []
    for _ in range(draw(st.integers(0, 2))):
        blocks = [draw(clearml()) for _ in range(draw(st.integers(0, 2)))]
        others = draw(st.sampled_from([[], ["enabled: true"], ["num_images: 3", 'wandb_config { name: "x" }']]))
        visualizers.append(draw(message("visualizer", draw(st.permutations([*blocks, *others])))))
    training = draw(message("training_config", draw(st.permutations(["num_epochs: 80", *visualizers]))))
    mapping = draw(message("target_class_mapping", ['key: "car {"', "value: 'car'"]))
    parts = draw(st.permutations([training, f"dataset_config {{ {mapping}\n}}", "random_seed: 42"]))
    text = draw(NOISE) + "\n".join(parts) + draw(st.sampled_from(["", "\n", "\n# the end"]))
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


def parsed(text: str, *, images: bool) -> tuple[Any, bytes]:
    """ClearML's part as protobuf reads it, and all the rest."""
    whole = new_message("Spec")
    text_format.Merge(text, whole, allow_unknown_field=True)
    tracking = type(whole.training_config.visualizer.clearml_config)()
    tracking.CopyFrom(whole.training_config.visualizer.clearml_config)
    whole.training_config.visualizer.ClearField("clearml_config")
    if images:
        whole.training_config.visualizer.ClearField("enabled")
    if not whole.training_config.visualizer.ByteSize():
        whole.training_config.ClearField("visualizer")
    return tracking, whole.SerializeToString(deterministic=True)


@given(
    text=specs(), project=PROJECTS, task=NAMES.filter(str.strip), tags=st.none() | TAGS,
    every=st.none() | st.integers(1, 80),
)  # fmt: skip
@settings(deadline=None)
def test_only_tracking_changes(text: str, project: str, task: str, tags: list[str] | None, every: int | None) -> None:
    """Protobuf reads what was asked for, and the rest as before; lines that stay are byte-identical; twice is once."""
    patch = TrackingPatch(
        project=project, task=task, tags=None if tags is None else tuple(tags), debug_image_every=every
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.txt"
        path.write_bytes(text.encode())
        after = patch_spec(path, patch).after
        assert path.read_bytes() == text.encode()
        path.write_bytes(after.encode())
        assert not patch_spec(path, patch).changed
    tracking_before, rest_before = parsed(text, images=every is not None)
    tracking, rest = parsed(after, images=every is not None)
    assert rest == rest_before
    assert (tracking.project, tracking.task) == (project, task)
    assert sorted(tracking.tags) == sorted(tracking_before.tags if tags is None else set(tags))
    assert tracking.reuse_last_task_id == tracking_before.reuse_last_task_id
    assert comments(after) == comments(text)
    # Bytes outside the message that holds it, and inside it all but what is of the visualizer.
    (training,) = parse_tree(text).root.all("training_config")
    assert after.startswith(text[: training.start])
    assert after.endswith(text[training.end :])
    lines = after.splitlines(keepends=True)
    outside = [
        line
        for line in text.splitlines(keepends=True)
        if line.strip(" ,;}\t\r\n") in ("num_epochs: 80", 'key: "car {"')
    ]
    assert all(line in lines for line in outside)


def comments(text: str) -> list[str]:
    """The comments of a text, in order; those in strings are none."""
    return [
        found for found in re.findall(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|#[^\n]*', text) if found.startswith("#")
    ]


def test_a_spec_of_nvidias_is_extended_by_whole_lines(golden: Path, tmp_path: Path) -> None:
    """In NVIDIA's own spec, without its tracking, all that happens is that lines are added."""
    text = (golden / "specs" / "tao_tutorials_5.0" / "detectnet_v2_train_resnet18_kitti.txt").read_text()
    start, end = text.index("    clearml_config{"), text.index("    wandb_config{")
    path = tmp_path / "spec.txt"
    path.write_text(text[:start] + text[end:])
    patched = patch_spec(path, TrackingPatch(project="street/detector", task="unpruned", tags=("resnet18",)))
    changes = list(difflib.ndiff(patched.before.splitlines(), patched.after.splitlines()))
    assert [line for line in changes if line[0] == "-"] == []
    assert [line[2:] for line in changes if line[0] == "+"] == [
        "    clearml_config {",
        '      project: "street/detector"',
        '      task: "unpruned"',
        '      tags: "resnet18"',
        "    }",
    ]
