"""Latency and throughput of resnet18 at 544×960 in onnxruntime: fp32, fp16 and int8, at several batch sizes.

    python benchmarks/gpu_latency.py --json results.json                       # CUDA provider
    python benchmarks/gpu_latency.py --provider cpu --height 64 --width 96     # does the script work?

Input and outputs stay on the device (I/O binding), so copies over the bus are not in the figures, nor are pre- and
postprocessing. One stream: the next batch starts when the one before is done. The cases take turns, round after
round, and the median round counts. The weights are random: speed does not depend on them, accuracy would.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import networks
import numpy as np

from tao2serve.export.convert import export_onnx
from tao2serve.export.engine.machine import read_machine
from tao2serve.export.execution import sample_images
from tao2serve.export.inference import onnxruntime
from tao2serve.parity.tensors import compare_tensors
from tao2serve.tao.keras import Array
from tao2serve.values import ModelArtifact, ModelSignature

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
COMPARED = 2  # images whose tensors are held against fp32 on the CPU


@dataclass(kw_only=True)
class Case:
    """One precision at one batch size: what it is, and what was measured."""

    precision: str
    batch: int
    latencies_ms: list[float] = field(default_factory=list)  # the median of each round
    images_per_s: list[float] = field(default_factory=list)  # of each round
    coverage_max_error: float = 0.0
    bbox_max_error: float = 0.0
    nodes: dict[str, int] = field(default_factory=dict)  # how many ran on which provider

    def row(self) -> list[str]:
        elsewhere = sum(self.nodes.values()) - max(self.nodes.values())
        return [
            self.precision, str(self.batch), f"{statistics.median(self.latencies_ms):.2f}",
            f"{min(self.latencies_ms):.2f} to {max(self.latencies_ms):.2f}",
            f"{statistics.median(self.images_per_s):.0f}", f"{self.coverage_max_error:.2g}",
            f"{self.bbox_max_error:.2g}", str(elsewhere),
        ]  # fmt: skip


class Runner:
    """One model in one session, with a batch that lies on the device."""

    def __init__(self, artifact: ModelArtifact, images: Array, options: argparse.Namespace) -> None:
        self.artifact, self.options = artifact, options
        self.device = options.provider
        self.session = self._open(profiled=False)
        self.images = onnxruntime().OrtValue.ortvalue_from_numpy(images, self.device, 0)
        self.outputs = [artifact.signature.coverage.name, artifact.signature.bbox.name]
        self.binding = self._bound(self.session)

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def answers(self) -> list[Array]:
        self()
        return [value.numpy() for value in self.binding.get_outputs()]

    def nodes(self) -> dict[str, int]:
        """How many nodes of the optimised graph run on which provider, from onnxruntime's own profile."""
        session = self._open(profiled=True)
        session.run_with_iobinding(self._bound(session))
        path = Path(session.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        used = {event["name"]: event["args"]["provider"] for event in events if event.get("args", {}).get("provider")}
        return dict(Counter(used.values()))

    def _bound(self, session: Any) -> Any:
        binding = session.io_binding()
        binding.bind_ortvalue_input(self.artifact.signature.input.name, self.images)
        for name in self.outputs:
            binding.bind_output(name, self.device, 0)
        return binding

    def _open(self, *, profiled: bool) -> Any:
        runtime = onnxruntime()
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = self.options.threads
        settings.enable_profiling = profiled
        settings.profile_file_prefix = str(Path(tempfile.gettempdir()) / f"gpu_latency-{os.getpid()}")
        name = PROVIDERS[self.device]
        # TensorFloat-32 is on by default and is not fp32; the search for the fastest convolutions ends in warm-up.
        provider = (name, {"use_tf32": "1" if self.options.tf32 else "0"}) if self.device == "cuda" else name
        session = runtime.InferenceSession(str(self.artifact.path), settings, providers=[provider])
        if session.get_providers()[0] != name:
            sys.exit(f"onnxruntime does not run on {name}, and took {', '.join(session.get_providers())}")
        return session


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    runtime = onnxruntime()
    if options.provider == "cuda" and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # CUDA and cuDNN out of pip's packages, if they are there
    if PROVIDERS[options.provider] not in runtime.get_available_providers():
        print(f"this onnxruntime has no {PROVIDERS[options.provider]}; pip install onnxruntime-gpu", file=sys.stderr)
        return 4
    with tempfile.TemporaryDirectory(prefix="gpu-latency-") as folder:
        cases = measure(Path(folder), options)
    document = {"machine": machine(), "versions": versions(), "settings": settings(options),
                "cases": [asdict(case) for case in cases]}  # fmt: skip
    print(markdown(document, cases))
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> list[Case]:
    source = networks.write_resnet18(folder / "resnet18.hdf5", height=options.height, width=options.width)
    plain = export_onnx(source, output=folder / "resnet18.onnx")
    images = sample_images(plain.signature, count=max(*options.batch, COMPARED))
    wanted = reference(plain, images[:COMPARED], options)
    cases, runners = [], []
    for precision in options.precision:
        artifact = in_precision(plain, precision, folder)
        for batch in options.batch:
            case, runner = Case(precision=precision, batch=batch), Runner(artifact, images[:batch], options)
            case.coverage_max_error, case.bbox_max_error = errors(wanted, runner.answers(), plain.signature)
            case.nodes = runner.nodes()
            cases.append(case)
            runners.append(runner)
    for runner in runners:
        timed(runner, options.seconds)  # warm-up
    for number in range(options.rounds):
        order = range(len(cases)) if number % 2 == 0 else reversed(range(len(cases)))
        for index in order:
            latencies, elapsed_s = timed(runners[index], options.seconds)
            cases[index].latencies_ms.append(1000 * statistics.median(latencies))
            cases[index].images_per_s.append(cases[index].batch * len(latencies) / elapsed_s)
    return cases


def in_precision(artifact: ModelArtifact, precision: str, folder: Path) -> ModelArtifact:
    """The same network in another precision; the ranges of int8 are those of one smooth picture."""
    if precision == "fp32":
        return artifact
    # isort: off
    from tao2serve.export.local import neutral_picture
    from tao2serve.export.precision.calibrate import calibrate
    from tao2serve.export.precision.load import load_model
    from tao2serve.export.precision.write import to_precision
    from tao2serve.runtime import DetectorParams
    # isort: on

    channels, height, width = artifact.signature.input.shape
    params = DetectorParams.from_dict({
        "family": "detectnet_v2", "bbox_scale": 35.0, "bbox_offset": 0.5,
        "input": {"channels": channels, "height": height, "width": width},
        "classes": [{"name": f"class {index}"} for index in range(artifact.signature.class_count)],
    })  # fmt: skip
    picture = folder / "picture.jpg"
    picture.write_bytes(neutral_picture(params))
    ranges = (
        calibrate(load_model(artifact), [picture], params=params, subject="resnet18") if precision == "int8" else None
    )
    return to_precision(artifact, precision=precision, ranges=ranges, output=folder)


def reference(artifact: ModelArtifact, images: Array, options: argparse.Namespace) -> list[Array]:
    """What the fp32 network gives on the CPU."""
    on_cpu = argparse.Namespace(**{**vars(options), "provider": "cpu"})
    return Runner(artifact, images, on_cpu).answers()


def errors(wanted: Sequence[Array], found: Sequence[Array], signature: ModelSignature) -> tuple[float, float]:
    names = (signature.coverage.name, signature.bbox.name)
    count = min(len(wanted[0]), len(found[0]))
    first, second = (
        compare_tensors(one[:count], other[:count].astype(np.float32), name=name).max_abs
        for one, other, name in zip(wanted, found, names, strict=True)
    )
    return first, second


def timed(runner: Runner, seconds: float) -> tuple[list[float], float]:
    """Run over and over for that long, three times at least; every run's time, and the time of all."""
    latencies: list[float] = []
    start = time.perf_counter()
    while len(latencies) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        runner()
        latencies.append(time.perf_counter() - before)
    return latencies, time.perf_counter() - start


def machine() -> dict[str, str]:
    here = read_machine()
    return {
        "gpu": here.gpu_name, "compute_capability": here.compute_capability, "driver": here.driver_version,
        "cuda_of_driver": here.cuda_version, "platform": here.platform, "cpu_cores": str(os.cpu_count()),
    }  # fmt: skip


def versions() -> dict[str, str]:
    import tao2serve

    runtime = onnxruntime()
    return {
        "tao2serve": tao2serve.__version__, "onnxruntime": runtime.__version__,
        "onnxruntime_build": str(runtime.get_build_info())[:300], "numpy": np.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def settings(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "json"}


def markdown(document: dict[str, Any], cases: Sequence[Case]) -> str:
    here, used, chosen = document["machine"], document["versions"], document["settings"]
    device = here["gpu"] if chosen["provider"] == "cuda" else f"CPU, {here['cpu_cores']} cores"
    heads = ["precision", "batch", "latency ms, median", "rounds from to", "images/s", "max error coverage",
             "max error bbox", "nodes on another provider"]  # fmt: skip
    lines = [
        f"resnet18, {chosen['height']}×{chosen['width']}, onnxruntime {used['onnxruntime']}, {device}"
        + (f", driver {here['driver']}, CUDA {here['cuda_of_driver']}" if chosen["provider"] == "cuda" else ""),
        "",
        f"| {' | '.join(heads)} |",
        f"|{'|'.join(['---'] * len(heads))}|",
        *(f"| {' | '.join(case.row())} |" for case in cases),
    ]
    return "\n".join(lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--provider", choices=sorted(PROVIDERS), default="cuda")
    parser.add_argument("--height", type=int, default=544)
    parser.add_argument("--width", type=int, default=960)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "fp16", "int8"), default=["fp32", "fp16", "int8"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case in each round")
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime on the CPU; 0: as many as cores")
    parser.add_argument("--tf32", action="store_true", help="let fp32 convolutions round to TensorFloat-32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
