"""`tao2serve inspect`: what a file is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tao2serve.cli.options import Json, Spec
from tao2serve.cli.output import print_json, print_text

if TYPE_CHECKING:
    from tao2serve.inspection import Inspection
    from tao2serve.values import Tensor


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .hdf5, .onnx or .plan file, or an experiment spec.")],
    spec: Spec = None,
    json_output: Json = False,
) -> None:
    """Say what a model file or an experiment spec is, and what is unusual about it.

    Example: tao2serve inspect weights/model.hdf5 --spec experiment_spec.txt
    """
    from tao2serve.inspection import inspect_file

    found = inspect_file(file, spec=spec)
    if json_output:
        print_json(found.to_dict())
    else:
        print_text(table(found))


def table(found: Inspection) -> str:
    """Return the facts as two columns, what is unusual below them."""
    rows = [(name, text) for name, text in _rows(found) if text]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    lines += [f"{'unusual':<{width}}  {text}" for text in found.unusual]
    return "\n".join(lines)


def _rows(found: Inspection) -> list[tuple[str, str]]:
    signature = found.signature
    rows = [("file", f"{found.path}, {_size(found.size_bytes)}"), ("kind", KINDS[found.kind])]
    if found.template:
        rows.append(("template", " ".join(filter(None, (found.template, str(found.num_layers or ""))))))
    rows += [
        ("pruned", _yes(found.pruned)),
        ("QAT", _yes(found.qat)),
        ("precision", found.precision or ""),
        ("parameters", f"{found.parameters:,}" if found.parameters else ""),
    ]
    if signature:
        rows += [
            ("input", _tensor(signature.input) + (", scaled in the graph" if signature.takes_pixels else "")),
            (
                "outputs",
                f"{_tensor(signature.coverage)}, {_tensor(signature.bbox)}"
                + (", boxes in network pixels" if signature.gives_boxes else ""),
            ),
            ("stride", str(signature.stride)),
        ]
    if found.classes:
        source = f"  (from {found.spec})" if found.spec else ""
        rows.append(("classes", ", ".join(found.classes) + source))
    elif signature:
        rows.append(("classes", f"{signature.class_count}, named by the experiment spec: --spec FILE"))
    plain = {name: value for name, value in found.facts.items() if name not in SHOWN_ELSEWHERE}
    # What a plan's record repeats of the rows above is left out.
    plain |= {name: value for name, value in (found.facts.get("record") or {}).items() if name not in SHOWN_ABOVE}
    if "input" in plain:
        plain["input"] = "x".join(map(str, plain["input"]["shape"])) + " (channels, height, width)"
    rows += [(name.replace("_", " "), _text(value)) for name, value in plain.items()]
    rows += [(name, str(value)) for name, value in found.facts.get("metadata", {}).items()]
    rows += [("clustering", _clustering(entry)) for entry in found.facts.get("clustering", ())]
    rows.append(("sha256", found.sha256))
    return rows


SHOWN_ELSEWHERE = ("clustering", "metadata", "record", "wrong_pads")  # below, and among what is unusual
SHOWN_ABOVE = ("signature", "precision", "plan_sha256")
KINDS = {
    "keras_hdf5": "Keras HDF5, as TAO saves it",
    "onnx": "ONNX",
    "tensorrt_plan": "TensorRT plan",
    "experiment_spec": "experiment spec",
    "clustering_file": "clustering file of tao-toolkit-triton-apps, to lie over a spec (--clustering)",
}


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]


def _tensor(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.datatype} [N, {', '.join(map(str, tensor.shape))}]"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items() if item not in (None, "", []))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return _yes(value)
    return "" if value is None else str(value)


def _clustering(entry: dict[str, Any]) -> str:
    shown = {name: entry[name] for name in ("coverage_threshold", "minimum_bounding_box_height")}
    prefix = "nms_" if entry["clustering"] == "nms" else "" if entry["clustering"] == "hybrid" else "dbscan_"
    shown |= {name: value for name, value in entry.items() if name.startswith(prefix or ("dbscan_", "nms_"))}
    settings = ", ".join(f"{name} {value:g}" for name, value in shown.items())
    return f"{entry['name']}: {entry['clustering']}, {settings}"
