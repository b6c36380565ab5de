"""Measure our export beside tf-keras + tf2onnx on the same file: time, peak memory, installed size, numbers.

    python benchmarks/export_vs_tensorflow.py --prepare DIR      # once: makes the environments, 5 GB
    python benchmarks/export_vs_tensorflow.py --environments DIR

Every figure is that of a fresh process, from its start to its end, imports and writing the file included; the
sides take turns. README.md beside this file says what that leaves out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measurement import Cost, installed_bytes, make_environments, measure, package_versions

_HERE = Path(__file__).resolve().parent
_NETWORKS = ("resnet18", "resnet101", "vgg19")

# pip's arguments for each environment, in order. `--no-deps` keeps tf-keras from bringing the larger tensorflow.
_ENVIRONMENTS: Mapping[str, Sequence[Sequence[str]]] = {
    "tao2serve": [[str(_HERE.parent)]],
    "tao2serve-export-only": [
        ["--no-deps", str(_HERE.parent)],
        ["h5py", "numpy", "onnx", "onnxruntime", "pillow", "protobuf", "pydantic-settings", "rich", "typer"],
    ],
    "tensorflow": [["tf-keras", "tf2onnx"]],
    "tensorflow-cpu": [["tensorflow-cpu", "tf2onnx"], ["--no-deps", "tf-keras"]],
}
_VERSIONS_KEPT = (
    "h5py", "ml-dtypes", "numpy", "onnx", "onnxruntime", "protobuf", "tao2serve", "tensorflow", "tensorflow_cpu",
    "tf2onnx", "tf_keras",
)  # fmt: skip
# Nobody's progress is shown, and no CUDA is looked for.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

_EXPORT = """
import sys
from pathlib import Path
from tao2serve.export.convert import export_onnx
export_onnx(Path(sys.argv[1]), output=Path(sys.argv[2]))
"""
_WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import networks
getattr(networks, "write_" + sys.argv[2])(Path(sys.argv[3]))
"""
_CLUSTERING = "coverage_threshold: 0.005 dbscan_eps: 0.3 dbscan_min_samples: 1 minimum_bounding_box_height: 4"
_CLASSES = ("car", "person", "bicycle")


def main() -> None:
    """Prepare the environments, or measure in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prepare", type=Path, metavar="DIR", help="make the four environments below DIR")
    what.add_argument("--environments", type=Path, metavar="DIR", help="measure in the environments below DIR")
    parser.add_argument("--network", choices=_NETWORKS, default="resnet18")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--machine", default=f"{os.cpu_count()} CPU cores", help="how the result names this machine")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the result goes as JSON")
    options = parser.parse_args()
    if options.prepare:
        make_environments(options.prepare.resolve(), _ENVIRONMENTS)
        return
    result = compare(
        options.environments.resolve(), network=options.network, rounds=options.rounds, machine=options.machine
    )
    print(table(result))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def compare(environments: Path, *, network: str, rounds: int, machine: str) -> dict[str, Any]:
    """Run all sides by turns and return what came out, ready for JSON."""
    with tempfile.TemporaryDirectory(prefix="export-benchmark-") as name:
        folder = Path(name)
        source = folder / f"{network}.hdf5"
        ours = str(_python(environments, "tao2serve"))
        measure([ours, "-c", _WRITE, str(_HERE), network, str(source)], folder=folder)
        (folder / "spec.txt").write_text(spec_text())
        commands = _commands(environments, folder, source)
        for command in commands.values():  # once before it counts: files come from the disk cache from now on
            measure(command, folder=folder, environment=_QUIET)
        turns: list[dict[str, Any]] = []
        for turn in range(rounds):
            costs = {side: measure(command, folder=folder, environment=_QUIET) for side, command in commands.items()}
            turns.append({"load_before": round(os.getloadavg()[0], 1), "costs": costs})
            print(f"round {turn + 1}: " + _line(costs), file=sys.stderr)
        differences = _differences(environments, folder, source)
        source_bytes = source.stat().st_size
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "python": platform.python_version(),
        "network": f"{network}, 3x544x960, {source_bytes} bytes of HDF5",
        "rounds": rounds,
        "load_average": [turn["load_before"] for turn in turns],
        "sides": {side: summary([turn["costs"][side] for turn in turns]) for side in commands},
        "installed_bytes": {name: installed_bytes(_packages(environments, name)) for name in _ENVIRONMENTS},
        "versions": {
            name: {
                package: version
                for package, version in package_versions(_python(environments, name)).items()
                if package.replace("_", "-") in {kept.replace("_", "-") for kept in _VERSIONS_KEPT}
            }
            for name in ("tao2serve", "tensorflow-cpu")
        },
        "differences": differences,
    }


def _commands(environments: Path, folder: Path, source: Path) -> dict[str, list[str]]:
    ours, theirs = _python(environments, "tao2serve"), _python(environments, "tensorflow-cpu")
    rival = [str(theirs), str(_HERE / "tensorflow_export.py"), str(source)]
    program = str(ours.with_name("tao2serve"))
    return {
        "ours": [str(ours), "-c", _EXPORT, str(source), str(folder / "ours.onnx")],
        "ours_with_parity": [
            program, "export", str(source), "--spec", str(folder / "spec.txt"), "-o", str(folder / "out"), "--force",
        ],
        "tensorflow": [*rival, str(folder / "tensorflow.onnx")],
        "tensorflow_bare": [*rival, str(folder / "tensorflow_bare.onnx"), "--bare"],
    }  # fmt: skip


def _differences(environments: Path, folder: Path, source: Path) -> dict[str, Any]:
    """Compare all ONNX files with our numpy reading; `tensorflow_stock` shows what TAO's padding is worth."""
    stock = folder / "tensorflow_stock.onnx"
    rival = [str(_python(environments, "tensorflow-cpu")), str(_HERE / "tensorflow_export.py")]
    measure([*rival, str(source), str(stock), "--stock"], folder=folder, environment=_QUIET)
    files = [folder / "ours.onnx", folder / "tensorflow.onnx", folder / "tensorflow_bare.onnx", stock]
    command = [
        str(_python(environments, "tao2serve")), str(_HERE / "export_differences.py"), str(source), *map(str, files),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    )
    for side in ("ours", "tensorflow", "tensorflow_bare"):
        worst = max(found["max_abs_difference"][side]["to_numpy_reading"].values())
        if not worst < 1e-3:
            raise SystemExit(f"{side} gives other numbers ({worst:g}): there is nothing to compare")
    return found


def spec_text() -> str:
    """An experiment spec that fits the networks measured here; `tao2serve export` wants one."""
    targets = "\n".join(f'  target_classes {{ name: "{name}" }}' for name in _CLASSES)
    clustering = "\n".join(
        f'  target_class_config {{ key: "{name}" value {{ clustering_config {{ {_CLUSTERING} }} }} }}'
        for name in _CLASSES
    )
    size = "output_image_width: 960 output_image_height: 544 output_image_channel: 3"
    return (
        f"cost_function_config {{\n{targets}\n}}\n"
        f"augmentation_config {{ preprocessing {{ {size} }} }}\n"
        "model_config { objective_set { bbox { scale: 35.0 offset: 0.5 } cov { } } }\n"
        f"postprocessing_config {{\n{clustering}\n}}\n"
    )


def summary(costs: Sequence[Cost]) -> dict[str, Any]:
    """Return the median over all runs, and of the time also the fastest and the slowest."""
    walls = [cost.wall_s for cost in costs]
    return {
        "wall_s": {
            "median": round(statistics.median(walls), 2),
            "min": round(min(walls), 2),
            "max": round(max(walls), 2),
        },
        "cpu_s": round(statistics.median(cost.cpu_s for cost in costs), 2),
        "peak_bytes": int(statistics.median(cost.peak_bytes for cost in costs)),
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown: a row a side, and how many times our figure each one is."""
    sizes, sides = result["installed_bytes"], result["sides"]
    ours = sides["ours"]
    rows = [
        "| side | time, median (range) | × ours | processor time | peak memory | × ours |",
        "|---|---|---|---|---|---|",
    ]
    for side, found in sides.items():
        wall = found["wall_s"]
        rows.append(
            f"| {side} | {wall['median']:.2f} s ({wall['min']:.2f}–{wall['max']:.2f}) "
            f"| {wall['median'] / ours['wall_s']['median']:.1f} | {found['cpu_s']:.1f} s "
            f"| {found['peak_bytes'] / 1e6:.0f} MB | {found['peak_bytes'] / ours['peak_bytes']:.1f} |"
        )
    rows += ["", "| environment | installed | × tao2serve |", "|---|---|---|"]
    rows += [f"| {name} | {size / 1e6:.0f} MB | {size / sizes['tao2serve']:.1f} |" for name, size in sizes.items()]
    return "\n".join(rows)


def _line(costs: Mapping[str, Cost]) -> str:
    return ", ".join(f"{side} {cost.wall_s:.1f} s {cost.peak_bytes / 1e6:.0f} MB" for side, cost in costs.items())


def _python(folder: Path, name: str) -> Path:
    return folder / name / "bin" / "python"


def _packages(folder: Path, name: str) -> Path:
    return next((folder / name / "lib").glob("python3.*")) / "site-packages"


if __name__ == "__main__":
    main()
