"""What scaling and decoding cost in numpy around TAO's graph, and inside a lean one; and what a request carries.

    python benchmarks/lean_graphs.py --json results.json

Three forms of each network take turns, round after round, and the median round counts, with the least beside it: TAO's
graph with `to_tensor` and `absolute_boxes` around it, the graph that takes pixels, and the one that also gives boxes.
onnxruntime is set up as on Triton (`runtime/triton_model.py`). Reading and resizing the picture and clustering are the
same for all and not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import networks
import numpy as np

from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import sample_pixels
from tao2serve.export.inference import onnxruntime
from tao2serve.export.lean import make_lean
from tao2serve.images import Pixels
from tao2serve.runtime import DetectorParams
from tao2serve.runtime.candidates import absolute_boxes
from tao2serve.runtime.preprocess import to_tensor
from tao2serve.runtime.values import ClassParams
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.values import ModelArtifact

FORMS = {"TAO's graph": (False, False), "pixels": (True, False), "pixels, boxes": (True, True)}


@dataclass(kw_only=True)
class Case:
    """One form of one network: what a request carries, and the milliseconds of each round."""

    network: str
    form: str
    request_bytes: int
    scale_ms: list[float] = field(default_factory=list)  # pixels → tensor, in numpy
    run_ms: list[float] = field(default_factory=list)  # in onnxruntime
    decode_ms: list[float] = field(default_factory=list)  # the whole grid of offsets → boxes, in numpy
    total_ms: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        steps = (self.scale_ms, self.run_ms, self.decode_ms, self.total_ms)
        return [
            self.network, self.form, f"{self.request_bytes / 1e6:.2f} MB",
            *(f"{statistics.median(values):.2f} ({min(values):.2f})" for values in steps),
        ]  # fmt: skip


class Side:
    """One form of a network in a session as Triton's python backend opens it."""

    def __init__(self, artifact: ModelArtifact, params: DetectorParams, *, threads: int) -> None:
        self.signature, self.params = artifact.signature, params
        runtime = onnxruntime()
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = runtime.InferenceSession(str(artifact.path), settings, providers=["CPUExecutionProvider"])
        self.outputs = [self.signature.coverage.name, self.signature.bbox.name]

    def __call__(self, pixels: Pixels) -> tuple[list[np.ndarray[Any, Any]], list[float]]:
        """Return coverage and boxes of one image, and the seconds of scaling, running and decoding."""
        clock = [time.perf_counter()]
        taken = pixels if self.signature.takes_pixels else to_tensor(pixels[0], self.params)[None]
        clock.append(time.perf_counter())
        coverage, bbox = self.session.run(self.outputs, {self.signature.input.name: taken})
        clock.append(time.perf_counter())
        if not self.signature.gives_boxes:
            bbox = absolute_boxes(bbox[0], self.params)[None]
        clock.append(time.perf_counter())
        return [coverage, bbox], [after - before for before, after in pairwise(clock)]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    with tempfile.TemporaryDirectory(prefix="lean-graphs-") as folder:
        cases = [
            case
            for number, (network, (write, rounds)) in enumerate(sources(options).items())
            for case in measure(network, write, Path(folder) / str(number), rounds=rounds, threads=options.threads)
        ]
    document = {"machine": machine(), "versions": versions(), "rounds": options.rounds, "threads": options.threads,
                "cases": [asdict(case) for case in cases]}  # fmt: skip
    print(markdown(cases))
    if options.json is not None:
        options.json.write_text(written(document), encoding="utf-8")
    return 0


def sources(options: argparse.Namespace) -> dict[str, tuple[Callable[[Path], Path], int]]:
    """Return how each network is written, and its rounds: ten times as many of the quick ones."""
    size = {"height": options.height, "width": options.width}
    shown = f"{options.height}×{options.width}"
    return {
        "sample, 224×384": (lambda _: next((SAMPLE / "pruned" / "weights").glob("*.hdf5")), 10 * options.rounds),
        f"one convolution, {shown}": (lambda path: networks.write_one_convolution(path, **size), 10 * options.rounds),
        f"resnet18, {shown}": (lambda path: networks.write_resnet18(path, **size), options.rounds),
    }


def measure(network: str, write: Callable[[Path], Path], folder: Path, *, rounds: int, threads: int) -> list[Case]:
    """Measure the three forms of one network; raises AssertionError if a bit of their results differs."""
    folder.mkdir()
    plain = export_onnx(write(folder / "network.hdf5"), output=folder / "network.onnx")
    params = params_of(plain)
    pixels = sample_pixels(plain.signature, count=1)
    sides, cases = [], []
    for number, (form, (uint8_input, boxes)) in enumerate(FORMS.items()):
        artifact = make_lean(
            plain, output=folder / f"{number}.onnx", uint8_input=uint8_input, absolute_boxes=boxes, params=params
        )
        sides.append(Side(artifact, params, threads=threads))
        cases.append(Case(network=network, form=form, request_bytes=request_bytes(artifact)))
    results = [side(pixels)[0] for side in sides]  # also the warm-up
    for found in results[1:]:
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(results[0], found, strict=True))
    for number in range(rounds):
        for index in range(len(sides)) if number % 2 == 0 else reversed(range(len(sides))):
            _, seconds = sides[index](pixels)
            case = cases[index]
            for values, spent in zip((case.scale_ms, case.run_ms, case.decode_ms), seconds, strict=True):
                values.append(round(1000 * spent, 4))
            case.total_ms.append(round(1000 * sum(seconds), 4))
    return cases


def params_of(artifact: ModelArtifact) -> DetectorParams:
    """Settings with TAO's usual scale and offset."""
    channels, height, width = artifact.signature.input.shape
    return DetectorParams(
        channels=channels, height=height, width=width, bbox_scale=35.0, bbox_offset=0.5,
        classes=tuple(ClassParams(name=f"class {number}") for number in range(artifact.signature.class_count)),
    )  # fmt: skip


def request_bytes(artifact: ModelArtifact) -> int:
    """Size of the gRPC message that asks Triton about one image, by its own protobuf schema."""
    from tritonclient.grpc import service_pb2 as schema

    source = artifact.signature.input
    size = int(np.prod(source.shape)) * {"UINT8": 1, "FP32": 4}[source.datatype]
    request = schema.ModelInferRequest(model_name="network_1", raw_input_contents=[bytes(size)])
    request.inputs.add(name=source.name, datatype=source.datatype, shape=[1, *source.shape])
    for tensor in (artifact.signature.coverage, artifact.signature.bbox):
        request.outputs.add(name=tensor.name)
    return int(request.ByteSize())


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=544)
    parser.add_argument("--width", type=int, default=960)
    parser.add_argument(
        "--rounds", type=int, default=21, help="of resnet18; the others are measured in ten times as many"
    )
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime; 0 leaves it to choose")
    parser.add_argument("--json", type=Path, help="write every figure here")
    return parser.parse_args(arguments)


def machine() -> dict[str, Any]:
    return {
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": onnxruntime().__version__}


def written(document: dict[str, Any]) -> str:
    """Return the document as JSON, a line for each list of rounds."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def markdown(cases: Sequence[Case]) -> str:
    head = ["network", "form", "request", "scale, ms", "run, ms", "decode, ms", "total, ms"]
    rows = [head, ["---"] * len(head), *(case.row() for case in cases)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
