"""The floor: what an image costs through HTTP, ClearML Serving and Triton, beside its parts measured alone.

    python benchmarks/floor.py --write                                       # docs/performance.md
    python benchmarks/floor.py --with TAO2SERVE_UINT8_INPUT=true --with TAO2SERVE_RESIZE=fast

One client, one detector of 3×544×960. The parts are decoding and resizing (the runtime's own code, in one thread) and
one gRPC call with the same tensor to the same Triton model (tritonclient's own client). The network's own time,
Triton's `compute_infer`, is taken off both sides, so that the ratio is about the path alone; path and parts take turns.

What the rest is: the endpoint's own `timing_ms` beside each part, an endpoint of ClearML Serving that does nothing with
the same body (HTTP, FastAPI, dispatch), the processor time of each server, and, where py-spy is installed, the share of
the inference service's samples by what they were in.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reporting
from answers import ask
from detectors import SIZES, Detector, light_detector
from load_client import Block, LoadClient
from parts import OneCall, keep_freed_memory, reader, timed_by_turns
from reporting import Series
from serving_stack import SERVERS, Stack, running_stack
from stock_path import setting

from tao2serve.loadtest.triton_counts import Counters, ModelCounts, TritonCounters, Version, counted_between
from tao2serve.serving.names import triton_model_name

EXPECTED_RATIO = 2.0
EMPTY = '''"""Answers at once: what HTTP, FastAPI and ClearML Serving's dispatch cost with this body."""


class Preprocess:
    async def process(self, data, state, collect_custom_statistics_fn=None):
        return {}
'''
# Threads that only wait, which py-spy takes for busy at times.
WAITING = ("select (", "wait (", "_worker (", "readinto (", "create_connection (", "epoll")
# clearml-serving looks for changes of its configuration in a thread of its own; what that takes is measured idle.
POLLING = ("_sync_daemon", "/clearml/")
IDLE_S = 4.0
# The innermost frame that matches says what a sample was in; the order matters.
PLACES = (
    ("reading the picture", ("PIL/", "preprocess.py", "resize.py", "image.py", "header.py")),
    ("gRPC to Triton", ("grpc/", "tritonclient/", "triton_client.py", "google/protobuf", "_infer (")),
    ("clustering", ("postprocess.py", "candidates.py", "clustering.py", "dbscan.py", "nms.py")),
    ("writing the answer", ("answer.py", "json/", "encoders.py", "starlette/responses.py")),
    ("HTTP", ("h11/", "uvicorn/", "httptools")),
    ("FastAPI and clearml-serving", ("fastapi/", "starlette/", "clearml_serving/", "pydantic", "anyio")),
    ("event loop and threads", ("asyncio/", "concurrent/futures", "threading.py", "uvloop")),
)
PROFILE_S = 6


@dataclass(slots=True)
class Way:
    """One size of picture through the whole path: the client's blocks, and Triton's counters for each."""

    series: Series = field(default_factory=Series)
    empty: Series = field(default_factory=Series)
    models: list[ModelCounts] = field(default_factory=list)
    alone: list[dict[str, float]] = field(default_factory=list)
    alone_infer_ms: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SERVERS})


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    keep_freed_memory()
    with running_stack() as stack, LoadClient() as client:
        detector = light_detector(stack.folder, sizes={name: SIZES[name] for name in options.size})
        variables = {"TAO2SERVE_PLACEMENT": "endpoint", **dict(options.settings)}
        endpoint = detector.deploy(stack, variables=variables)["endpoint"]
        model = network_model(stack.triton, triton_model_name(endpoint["name"], int(endpoint["version"])))
        empty = register_empty(stack, detector)
        call = OneCall(stack.triton, model)
        mode = variables.get("TAO2SERVE_RESIZE", "lanczos")
        taken = reporting.circumstances(rounds=options.rounds, seconds=options.seconds, mode=mode,
                                        datatype=call.datatype, tensor_bytes=call.tensor_bytes,
                                        other=dict(options.settings))  # fmt: skip
        found = {
            size: measure(stack, client, detector, size, url=endpoint["url"], empty=empty, call=call, mode=mode,
                          model=model, options=options)
            for size in detector.pictures
        }  # fmt: skip
        profiles = {} if options.no_profile else {
            size: profile(stack, client, endpoint["url"], pictures) for size, pictures in detector.pictures.items()
        }  # fmt: skip
        idle = idle_cpu_ratio(stack)
    document = {
        **taken,
        "idle_cpu_ratio": idle,
        "sizes": {size: figures(way) for size, way in found.items()},
        "profile": profiles,
    }
    text = markdown(document)
    print(text)
    if options.json:
        reporting.write_json(document, options.json)
    if options.write:
        reporting.replace_section("floor", text)
    return 0


def network_model(triton: str, name: str) -> str:
    """Return the Triton model that runs the network: the one of this name, or in an ensemble its detector."""
    inside = f"{name}_detector"
    return inside if any(model == inside for model, _ in TritonCounters(triton, [name]).read()) else name


def register_empty(stack: Stack, detector: Detector) -> str:
    """Register an endpoint that answers {} at once; returns its URL when it answers."""
    code = stack.folder / "empty.py"
    code.write_text(EMPTY, encoding="utf-8")
    stack.run(
        "-m", "clearml_serving", "--id", stack.state.service_id, "model", "add", "--engine", "custom_async",
        "--endpoint", "empty", "--preprocess", str(code),
    )  # fmt: skip
    ask(stack.url("empty"), detector.first_pictures[0])
    return stack.url("empty")


def measure(
    stack: Stack, client: LoadClient, detector: Detector, size: str, *, url: str, empty: str, call: OneCall, mode: str,
    model: str, options: argparse.Namespace,
) -> Way:  # fmt: skip
    """Let the path, the empty endpoint and the parts take turns; the first round warms up and does not count."""
    way, counters = Way(), TritonCounters(stack.triton, [model])
    pictures = detector.pictures[size]
    bodies = [picture.read_bytes() for picture in pictures]
    read = reader(detector, mode)
    tensors = [call.tensor(read(body), detector) for body in bodies]
    parts = {
        "decode and resize": lambda index: read(bodies[index % len(bodies)]),
        "one gRPC call": lambda index: call(tensors[index % len(tensors)]),
    }
    for number in reporting.rounds_within(options.rounds, limit_s=options.limit / len(detector.pictures)):
        before, costs = counters.read(), {name: stack.cpu_s(name) for name in SERVERS}
        block = client.post(url, pictures, seconds=options.seconds, least=8)
        after, spent = counters.read(), {name: stack.cpu_s(name) for name in SERVERS}
        idle = client.post(empty, pictures, seconds=options.seconds / 5, least=4)
        alone_before = counters.read()
        alone = timed_by_turns(parts, rounds=1, repeats=8)
        alone_after = counters.read()
        if number:
            way.series.add(block, cpu_s=sum(spent.values()) - sum(costs.values()))
            way.empty.blocks.append(idle)
            way.models.append(counted(before, after, model))
            way.alone.append(alone)
            way.alone_infer_ms.append(counted(alone_before, alone_after, model).infer_ms)
            for name in SERVERS:
                way.cpu_ms[name].append(1e3 * (spent[name] - costs[name]) / len(block.latencies_ms))
    return way


def counted(before: Mapping[Version, Counters], after: Mapping[Version, Counters], model: str) -> ModelCounts:
    models, _ = counted_between(before, after)
    return next(counts for counts in models if counts.name == model)


def figures(way: Way) -> dict[str, Any]:
    """Return path and parts, the network taken off both, and the ratio between them; milliseconds."""
    median = statistics.median
    infer, alone_infer = median(times.infer_ms for times in way.models), median(way.alone_infer_ms)
    read = median(alone["decode and resize"] for alone in way.alone)
    call = median(alone["one gRPC call"] for alone in way.alone)
    ratios = [
        (median(block.latencies_ms) - times.infer_ms)
        / (alone["decode and resize"] + alone["one gRPC call"] - alone_infer_ms)
        for block, times, alone, alone_infer_ms in zip(
            way.series.blocks, way.models, way.alone, way.alone_infer_ms, strict=True
        )
    ]
    timing = {name: way.series.timing_ms(name) for name in ("preprocess", "infer", "postprocess", "total")}
    return {
        "path": {
            "p50": way.series.p50_ms, "network": infer, "without network": way.series.p50_ms - infer,
            "read": timing["preprocess"], "call without network": timing["infer"] - infer,
            "cluster": timing["postprocess"], "empty endpoint": way.empty.p50_ms,
            "triton": median(times.queue_ms + times.input_ms + times.output_ms for times in way.models),
        },
        "alone": {
            "decode and resize": read, "one gRPC call": call, "network": alone_infer,
            "sum without network": read + call - alone_infer,
        },
        # Of each round first, since a round's path and parts had the same machine.
        "ratio": median(ratios),
        "ratio_of_rounds": ratios,
        "cpu": {name: median(values) for name, values in way.cpu_ms.items()},
    }  # fmt: skip


def idle_cpu_ratio(stack: Stack) -> float:
    """Return what part of a core the inference service takes while nobody asks it."""
    before = stack.cpu_s("clearml-serving")
    time.sleep(IDLE_S)
    return (stack.cpu_s("clearml-serving") - before) / IDLE_S


def profile(stack: Stack, client: LoadClient, url: str, pictures: Sequence[Path]) -> dict[str, float]:
    """Return the share of the inference service's busy samples by place, from py-spy; empty where it is not there."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        return {}
    output = stack.folder / "profile.txt"
    command = [
        program, "record", "--pid", str(stack.pid("clearml-serving")), "--duration", str(PROFILE_S - 1),
        "--rate", "400", "--format", "raw", "--full-filenames", "--output", str(output), "--nonblocking",
    ]  # fmt: skip
    done: list[Block] = []
    load = threading.Thread(target=lambda: done.append(client.post(url, pictures, seconds=PROFILE_S)))
    load.start()
    try:
        subprocess.run(command, capture_output=True, timeout=PROFILE_S * 4, check=False)
    finally:
        load.join()
    return shares(output.read_text(encoding="utf-8")) if output.is_file() else {}


def shares(samples: str) -> dict[str, float]:
    """Return the share of each place in collapsed stacks (`frame;frame;… count`), the largest first."""
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        polls = any(part in frame for part in POLLING for frame in frames)
        if not polls and not any(name in frames[-1] for name in WAITING):
            counts[place(frames)] += int(count)
    total = sum(counts.values())
    return {name: count / total for name, count in counts.most_common()} if total else {}


def place(frames: Sequence[str]) -> str:
    """Say what a stack, outermost frame first, was in: its innermost frame that is of a known place."""
    for frame in reversed(frames):
        for name, parts in PLACES:
            if any(part in frame for part in parts):
                return name
    return "other"


def markdown(document: Mapping[str, Any]) -> str:
    chosen = document["settings"]
    settings = ", ".join(f"`{name}={value}`" for name, value in chosen["other"].items()) or "defaults"
    lines = [
        f"{reporting.said(document)} Settings: {settings}; tensor {chosen['datatype']}, "
        f"{chosen['tensor_bytes'] / 1e6:.2f} MB; resize {chosen['mode']}.",
        "",
        reporting.table(
            ["JPEG", "path without network, ms", "decode and resize", "one gRPC call without network", "sum", "ratio",
             "its quartiles"],
            [row(size, found) for size, found in document["sizes"].items()],
        ),
        "",
        "Where the path spends it, milliseconds:",
        "",
        reporting.table(
            ["JPEG", "p50", "network", "read (alone)", "call without network (alone)", "cluster",
             "HTTP, FastAPI, dispatch", "what is left", "CPU: inference service", "CPU: Triton and its models"],
            [rest(size, found) for size, found in document["sizes"].items()],
        ),
    ]  # fmt: skip
    lines += ["", (
        f"Beside requests, the inference service takes {100 * document['idle_cpu_ratio']:.0f} % of a core to look for "
        "changes of its configuration, in the sandbox every second (elsewhere every five minutes)."
    )]  # fmt: skip
    if any(document["profile"].values()):
        names = [*(name for name, _ in PLACES), "other"]
        lines += ["", "Busy samples of the inference service (py-spy):", "", reporting.table(
            ["JPEG", *names],
            [[size.replace("x", "×"), *(f"{100 * found.get(name, 0):.0f} %" for name in names)]
             for size, found in document["profile"].items()],
        )]  # fmt: skip
    return "\n".join(lines)


def row(size: str, found: Mapping[str, Any]) -> list[str]:
    alone, ratios = found["alone"], found["ratio_of_rounds"]
    return [
        size.replace("x", "×"), f"{found['path']['without network']:.1f}", f"{alone['decode and resize']:.1f}",
        f"{alone['one gRPC call'] - alone['network']:.1f}", f"{alone['sum without network']:.1f}",
        f"{found['ratio']:.2f}", "{0:.2f} to {2:.2f}".format(*statistics.quantiles(ratios, n=4)),
    ]  # fmt: skip


def rest(size: str, found: Mapping[str, Any]) -> list[str]:
    path, alone = found["path"], found["alone"]
    named = path["read"] + path["call without network"] + path["cluster"] + path["empty endpoint"]
    return [
        size.replace("x", "×"), f"{path['p50']:.1f}", f"{path['network']:.1f}",
        f"{path['read']:.1f} ({alone['decode and resize']:.1f})",
        f"{path['call without network']:.1f} ({alone['one gRPC call'] - alone['network']:.1f})",
        f"{path['cluster']:.1f}", f"{path['empty endpoint']:.1f}", f"{path['without network'] - named:.1f}",
        *(f"{found['cpu'][name]:.1f}" for name in SERVERS),
    ]  # fmt: skip


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), nargs="+", default=["960x544", "1920x1080"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of the path in each round")
    parser.add_argument("--with", dest="settings", type=setting, action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of the deployment, as TAO2SERVE_UINT8_INPUT=true")  # fmt: skip
    parser.add_argument("--no-profile", action="store_true", help="leave py-spy out")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds after which no further round begins")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
