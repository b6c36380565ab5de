"""What counting costs a request: `Preprocess.process` with metrics beside without, and the counting alone.

    python benchmarks/metering.py [--rounds 400] [--json FILE]

The sample detector and one of its pictures; Triton's answer is computed once and given at once, so a request takes no
longer than reading the picture and clustering the boxes, and the ratio is an upper bound of what a service sees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tao2serve.export.convert import export_onnx
from tao2serve.export.inference import onnxruntime
from tao2serve.runtime import DetectorParams, endpoint, exporter
from tao2serve.runtime.answer import ServedModel
from tao2serve.runtime.endpoint import EndpointSettings
from tao2serve.runtime.metrics import measured_by
from tao2serve.runtime.preprocess import preprocess
from tao2serve.sandbox.health import free_ports
from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec

MODEL = ServedModel(endpoint="street", version="1", id="0")
DETECTIONS = (0, 10, 100)


class Reply:
    """A finished answer with so many detections."""

    def __init__(self, detections: int) -> None:
        self.status_code = 200
        timing = {"preprocess": 4.2, "infer": 8.1, "postprocess": 0.7, "total": 13.0}
        scores = np.linspace(0.05, 0.99, max(detections, 1)).tolist()[:detections]
        self.document = {
            "timing_ms": timing,
            "predictions": [{"label": ("car", "person")[at % 2], "score": score} for at, score in enumerate(scores)],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        on = {exporter.PORT: str(free_ports(1)[0]), exporter.FOLDER: f"{folder}/cells"}
        alone = {count: counting_us(on, count, rounds=options.rounds) for count in DETECTIONS}
        without_ms, with_ms, ratio, spread = requests_ms(on, Path(folder), rounds=options.rounds)
        scrape_ms = statistics.median(timed_ms(partial(exporter.merged, Path(f"{folder}/cells"))) for _ in range(30))
    for count, microseconds in alone.items():
        print(f"counting a request with {count:>3} detections: {microseconds:6.1f} µs")
    print(f"a request: {without_ms:.2f} ms without, {with_ms:.2f} ms with; ratio of pairs {ratio:.3f} ± {spread:.3f}")
    print(f"adding up the numbers of one process: {scrape_ms:.2f} ms")
    if options.json:
        document = {
            "cores": len(os.sched_getaffinity(0)), "python": sys.version.split()[0], "rounds": options.rounds,
            "counting_us": alone, "without_ms": without_ms, "with_ms": with_ms, "ratio": ratio,
            "ratio_quartiles_half": spread, "adding_up_ms": scrape_ms,
        }  # fmt: skip
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def counting_us(on: dict[str, str], detections: int, *, rounds: int) -> float:
    """Return the median cost of counting one finished reply: with the meter, less without."""
    os.environ.update(on)
    metered: Callable[..., Any] = measured_by(MODEL, ["car", "person"])
    reply = Reply(detections)

    async def work() -> Reply:
        return reply

    async def run() -> float:
        differences = []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(20):
                await work()
            middle = time.perf_counter()
            for _ in range(20):
                await metered(work())
            differences.append((time.perf_counter() - middle - (middle - start)) / 20)
        return statistics.median(differences) * 1e6

    return asyncio.run(run())


def requests_ms(on: dict[str, str], folder: Path, *, rounds: int) -> tuple[float, float, float, float]:
    """Return the median request without and with metrics, in turns, the median ratio of neighbours and half the
    distance between the ratio's quartiles."""
    body = pictures()[0].read_bytes()
    for name in on:
        os.environ.pop(name, None)
    without = sample_endpoint(folder, body)
    os.environ.update(on)
    metered = sample_endpoint(folder, body)

    async def run() -> list[tuple[float, float]]:
        pairs = []
        for number in range(rounds + 10):
            taken = {}
            for side in (without, metered) if number % 2 else (metered, without):
                start = time.perf_counter()
                reply = await side.process(body, {})
                taken[side] = (time.perf_counter() - start) * 1e3
                assert reply.status_code == 200
                assert len(reply.document["predictions"]) > 5
            pairs.append((taken[without], taken[metered]))
        return pairs[10:]

    pairs = asyncio.run(run())
    plain, counted = zip(*pairs, strict=True)
    lower, ratio, upper = statistics.quantiles((b / a for a, b in pairs), n=4)
    return statistics.median(plain), statistics.median(counted), ratio, (upper - lower) / 2


def sample_endpoint(folder: Path, body: bytes) -> Any:
    """The sample detector's endpoint, whose Triton has already computed this picture's grids."""
    spec = read_spec(SAMPLE / "pruned" / "experiment_spec.txt")
    params = DetectorParams.from_dict(to_params(spec))
    (weights,) = (SAMPLE / "pruned" / "weights").glob("*.hdf5")
    onnx = folder / "sample.onnx"
    if not onnx.exists():
        export_onnx(weights, output=onnx, spec=spec)
    session = onnxruntime().InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    tensor, _ = preprocess(body, params)
    cov, bbox = session.run(None, {session.get_inputs()[0].name: tensor[None]})
    settings = EndpointSettings(
        model=MODEL, triton_model="street_1", placement="endpoint", resize="lanczos", input="float32",
        boxes="offsets", input_name="i", coverage_name="c", bbox_name="b", deadline_s=10.0,
        max_pixels=10**8, max_bytes=10**8,
    )  # fmt: skip
    (folder / endpoint.SETTINGS_FILE).write_text(json.dumps(asdict(settings)))
    (folder / endpoint.PARAMS_FILE).write_text(json.dumps(params.to_dict()))
    endpoint.__file__ = str(folder / "endpoint.py")
    made: Any = endpoint.Preprocess()

    async def computed(contents: Any, deadline: float) -> dict[str, np.ndarray[Any, Any]]:
        return {"c": cov, "b": bbox}

    made._infer = computed
    return made


def timed_ms(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
