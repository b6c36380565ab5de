"""ClearML Serving's own tensor path beside ours: one sandbox, one detector, the same JPEGs over HTTP.

    python benchmarks/stock_path.py --write        # prints the table and puts it into docs/performance.md

One detector (3×544×960, FP32 tensors) is deployed by `tao2serve deploy`. The stock side is registered by
`clearml-serving model add --engine triton` on a copy of the Triton model that this deployment loaded, with preprocess
code as in clearml-serving's examples (stock_endpoint.py). Decoding, scaling and clustering are the same calls on both
sides; what differs is who carries the tensor, and where the CPU work runs. Each side's boxes are held against the
other's before anything is timed. `--with NAME=VALUE` adds another deployment of ours under these settings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import reporting
from answers import alike, ask
from detectors import SIZES, Detector, light_detector
from load_client import LoadClient
from reporting import Series
from serving_stack import Stack, running_stack

from tao2serve.serving.names import triton_model_name

HERE = Path(__file__).resolve().parent
CLIENTS = (1, 4)
STOCK, OURS, CHOSEN = "clearml-serving's tensor path", "ours, same model", "ours, other settings"
STOCK_ENDPOINT = "stock"
# So that both sides have one Triton model and one way of scaling, whatever the defaults are.
SAME = {"TAO2SERVE_PLACEMENT": "endpoint", "TAO2SERVE_UINT8_INPUT": "false", "TAO2SERVE_ABSOLUTE_BOXES": "false",
        "TAO2SERVE_RESIZE": "lanczos"}  # fmt: skip
EXPECTED = {1: ("p50", 8.0), 4: ("throughput", 15.0)}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    with running_stack() as stack, LoadClient() as client:
        detector = light_detector(stack.folder, sizes={name: SIZES[name] for name in options.size})
        urls = {OURS: detector.deploy(stack, variables=SAME)["endpoint"]["url"]}
        urls = {STOCK: register_stock(stack, detector, urls[OURS]), **urls}
        if options.settings:
            urls[CHOSEN] = detector.deploy(stack, variables=dict(options.settings))["endpoint"]["url"]
        boxes = {size: compared(urls, paths) for size, paths in detector.pictures.items()}
        taken = reporting.circumstances(rounds=options.rounds, seconds=options.seconds,
                                        other=dict(options.settings))  # fmt: skip
        series = measure(stack, client, urls, detector.pictures, options)
    document = {
        **taken,
        "boxes_compared": boxes,
        "cases": [
            {"size": size, "side": side, "clients": clients, **found.to_dict()}
            for (size, side, clients), found in series.items()
        ],
    }
    text = markdown(document)
    print(text)
    if options.json:
        reporting.write_json(document, options.json)
    if options.write:
        reporting.replace_section("stock_path", text)
    return 0


def register_stock(stack: Stack, detector: Detector, url: str) -> str:
    """Register the detector with clearml-serving's own command line; returns the new endpoint's URL.

    Behind it is a second Triton model, byte for byte the files of ours. Naming the endpoint `light_1`, which would ask
    our own one, does not do: clearml-serving would store its preprocess code under the name of ours and replace it.
    """
    folder = stack.folder / "stock_preprocess"
    folder.mkdir()
    shutil.copyfile(HERE / "stock_endpoint.py", folder / "__init__.py")
    (folder / "params.json").write_text(json.dumps(detector.params.to_dict()), encoding="utf-8")
    endpoint, version = url.rsplit("/", 2)[1:]
    stack.copy_triton_model(triton_model_name(endpoint, int(version)), triton_model_name(STOCK_ENDPOINT, 1))
    tensors = signature(stack.triton, triton_model_name(STOCK_ENDPOINT, 1))
    stack.run(
        "-m", "clearml_serving", "--id", stack.state.service_id, "model", "add", "--engine", "triton",
        "--endpoint", STOCK_ENDPOINT, "--version", "1", "--preprocess", str(folder),
        "--input-name", *tensors["inputs"], "--input-type", "float32",
        "--input-size", *(json.dumps(list(shape)) for shape in tensors["inputs"].values()),
        "--output-name", *tensors["outputs"], "--output-type", "float32", "float32",
        "--output-size", *(json.dumps(list(shape)) for shape in tensors["outputs"].values()),
    )  # fmt: skip
    return stack.url(f"{STOCK_ENDPOINT}/1")


def signature(triton: str, model: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return names and shapes of a model's tensors, coverage first, as Triton says them."""
    from tritonclient.grpc import InferenceServerClient

    client = InferenceServerClient(triton)
    config = client.get_model_config(model).config
    client.close()
    outputs = sorted(config.output, key=lambda tensor: tensor.dims[0])  # one channel a class, and four
    return {
        "inputs": {tensor.name: tuple(tensor.dims) for tensor in config.input},
        "outputs": {tensor.name: tuple(tensor.dims) for tensor in outputs},
    }


def compared(urls: Mapping[str, str], pictures: Sequence[Path]) -> int:
    """Return how many boxes all sides gave alike; ends the benchmark if there are none, or if they differ.

    Other settings may scale pictures in another way: there a box may be off by two pixels.
    """
    answers = {side: [ask(url, path) for path in pictures] for side, url in urls.items()}
    total = sum(len(answer["predictions"]) for answer in answers[STOCK])
    for side, found in answers.items():
        if any(("timing_ms" in answer) == (side == STOCK) for answer in found):
            raise SystemExit(f"{urls[side]} is answered by the other side's code")
        within = 2.0 if side == CHOSEN else 0.01
        pairs = zip(answers[STOCK], found, strict=True)
        if not total or not all(alike(one, other, within_pixels=within) for one, other in pairs):
            raise SystemExit(f"{side} answers other boxes than {STOCK}: there is nothing to compare")
    return total


def measure(
    stack: Stack,
    client: LoadClient,
    urls: Mapping[str, str],
    pictures: Mapping[str, Sequence[Path]],
    options: argparse.Namespace,
) -> dict[tuple[str, str, int], Series]:
    """Let the sides take turns, in changing order; the first round warms up and does not count."""
    series = {(size, side, clients): Series() for size in pictures for side in urls for clients in CLIENTS}
    for number in reporting.rounds_within(options.rounds, limit_s=options.limit):
        for size, clients in ((size, clients) for size in pictures for clients in CLIENTS):
            for side in reporting.in_turn(urls, number):
                spent = stack.cpu_s()
                block = client.post(
                    urls[side], pictures[size], clients=clients, seconds=options.seconds if number else 0.3,
                    least=(4 if clients == 1 else 2) if number else 1,
                )  # fmt: skip
                if number:
                    series[size, side, clients].add(block, cpu_s=stack.cpu_s() - spent)
    return series


def markdown(document: Mapping[str, Any]) -> str:
    rows = []
    for case in document["cases"]:
        stock = next(
            other for other in document["cases"]
            if (other["size"], other["clients"], other["side"]) == (case["size"], case["clients"], STOCK)
        )  # fmt: skip
        is_stock = case is stock
        rows.append([
            case["side"], case["size"].replace("x", "×"), str(case["clients"]), f"{case['p50_ms']:.1f}",
            f"{case['p99_ms']:.1f}", f"{case['throughput_rps']:.1f}", f"{case['cpu_ms']:.0f}", str(case["requests"]),
            "" if is_stock else f"{stock['p50_ms'] / case['p50_ms']:.1f}",
            "" if is_stock else f"{case['throughput_rps'] / stock['throughput_rps']:.1f}",
        ])  # fmt: skip
    heads = [
        "side",
        "JPEG",
        "clients",
        "p50 ms",
        "p99 ms",
        "images/s",
        "processor ms",
        "requests",
        "p50, × less",
        "images/s, × more",
    ]
    busiest = max(case["client_cpu_ratio"] for case in document["cases"])
    other = document["settings"]["other"]
    lines = [reporting.said(document), "", reporting.table(heads, rows), ""]
    lines.append(
        f"All sides gave the same {sum(document['boxes_compared'].values())} boxes. "
        f"Median of {len(document['cases'][0]['latencies_ms'])} rounds; "
        f"the load client took at most {100 * busiest:.1f} % of a core."
    )
    lines.append("Processor time is that of ClearML Serving and Triton together, for one image.")
    if other:
        names = ", ".join(f"`{name}={value}`" for name, value in other.items())
        lines.append(f"Other settings: {names}; its boxes are the same to two pixels.")
    return "\n".join(lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), nargs="+", default=["960x544", "1920x1080"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each block; a slow side gets its requests done")
    parser.add_argument("--with", dest="settings", type=setting, action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of a further deployment of ours, as TAO2SERVE_UINT8_INPUT=true")  # fmt: skip
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which no further round begins")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    return parser.parse_args(arguments)


def setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("TAO2SERVE_"):
        raise argparse.ArgumentTypeError(f"{text!r} is not TAO2SERVE_…=value")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
