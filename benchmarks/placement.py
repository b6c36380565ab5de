"""Where pictures are read and boxes clustered, and in what form the tensor travels: all variants, side by side.

    python benchmarks/placement.py --json placement.json --write     # under 8 minutes; docs/performance.md
    python benchmarks/placement.py --json placement.json --only "endpoint, uint8"      # these cases anew

Each variant is a deployment of its own under its settings, all of them in one sandbox, and they take turns round after
round. Detectors: the sample (3×224×384, its own pictures) and a light one of 3×544×960 (drawn pictures of 1920×1080).
The split is the mean of one client's requests: reading and clustering as the endpoint's `timing_ms` says, queue and
infer as Triton counts them, transport what is left of the call to Triton, and around it what is left of the request.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reporting
from answers import alike, ask
from detectors import SIZES, Detector, light_detector, sample_detector
from load_client import LoadClient
from parts import alone_ms
from reporting import Series
from serving_stack import Stack, running_stack

from tao2serve.config import PREFIX, Settings
from tao2serve.loadtest.triton_counts import ModelCounts, TritonCounters, counted_between
from tao2serve.serving.names import triton_model_name

CLIENTS = (1, 2, 4, 8)
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "endpoint": {},
    "endpoint, uint8": {"placement": "endpoint", "uint8_input": "true"},
    "endpoint, uint8, boxes": {"placement": "endpoint", "uint8_input": "true", "absolute_boxes": "true"},
    "endpoint, uint8, fast": {"placement": "endpoint", "uint8_input": "true", "resize": "fast"},
    "endpoint, uint8, fast, 2 instances": {
        "placement": "endpoint", "uint8_input": "true", "resize": "fast", "instances": "2", "cpu_threads": "1",
    },
    "ensemble": {"placement": "ensemble"},
    "ensemble, uint8": {"placement": "ensemble", "uint8_input": "true"},
    "ensemble, uint8, fast": {"placement": "ensemble", "uint8_input": "true", "resize": "fast"},
}  # fmt: skip
DEFAULTS = {"placement": "endpoint", "uint8_input": "false", "absolute_boxes": "false", "resize": "lanczos"}


@dataclass(slots=True, kw_only=True)
class Case:
    """One detector under one variant's settings: where it is, and what was measured, by number of clients."""

    detector: Detector
    variant: str
    url: str
    triton_model: str
    series: dict[int, Series] = field(default_factory=lambda: {clients: Series() for clients in CLIENTS})
    triton: dict[int, list[dict[str, ModelCounts]]] = field(
        default_factory=lambda: {clients: [] for clients in CLIENTS}
    )

    def split_ms(self, clients: int) -> dict[str, float]:
        """Return where the mean request of that many clients spends its time; the entries add up to its latency."""
        series, rounds = self.series[clients], self.triton[clients]
        latency = statistics.median(statistics.fmean(block.latencies_ms) for block in series.blocks)
        named = {name: series.timing_ms(name) for name in ("preprocess", "infer", "postprocess", "total")}
        queue = statistics.median(sum(times.queue_ms for times in models.values()) for models in rounds)
        infer = statistics.median(self._detector_times(models).infer_ms for models in rounds)
        return {
            "read": named["preprocess"],
            "transport": named["infer"] - queue - infer,
            "queue": queue,
            "infer": infer,
            "cluster": named["postprocess"],
            "around": latency - sum(named[name] for name in ("preprocess", "infer", "postprocess")),
        }

    def _detector_times(self, models: Mapping[str, ModelCounts]) -> ModelCounts:
        return models.get(f"{self.triton_model}_detector") or models[self.triton_model]

    def to_dict(self, run: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "detector": self.detector.name,
            "variant": self.variant,
            "run": dict(run),
            "clients": {
                str(clients): {
                    **self.series[clients].to_dict(),
                    "split_ms": {name: round(value, 2) for name, value in self.split_ms(clients).items()},
                    "triton": [
                        {name: times.to_dict() for name, times in models.items()} for models in self.triton[clients]
                    ],
                }
                for clients in CLIENTS
            },
        }


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    document = read(options.json)
    with running_stack() as stack, LoadClient() as client:
        run = reporting.circumstances(rounds=options.rounds, seconds=options.seconds, size=options.size)
        detectors = [make(stack.folder, options.size) for name, make in DETECTORS.items() if name in options.detector]
        cases = [case for detector in detectors for case in deployed(stack, detector, options.only)]
        alone = {detector.name: alone_ms(detector, detector.first_pictures) for detector in detectors}
        measure(stack, client, cases, options)
    fresh = [case.to_dict(run) for case in cases]
    renewed = {(case["detector"], case["variant"]) for case in fresh}
    kept = [case for case in document["cases"] if (case["detector"], case["variant"]) not in renewed]
    order = list(VARIANTS)
    document["cases"] = sorted(
        kept + fresh, key=lambda case: (list(DETECTORS).index(case["detector"]), order.index(case["variant"]))
    )
    document["alone_ms"] |= alone
    text = markdown(document)
    print(text)
    if options.json:
        reporting.write_json(document, options.json)
    if options.write:
        reporting.replace_section("placement", text)
    return 0


DETECTORS: Mapping[str, Callable[[Path, str], Detector]] = {
    "sample": lambda folder, size: sample_detector(),
    "light": lambda folder, size: light_detector(folder, sizes={size: SIZES[size]}),
}


def read(path: Path | None) -> dict[str, Any]:
    """Return what earlier runs measured, or nothing."""
    if path is not None and path.is_file():
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document
    return {"cases": [], "alone_ms": {}}


def deployed(stack: Stack, detector: Detector, only: Sequence[str]) -> list[Case]:
    """Deploy every variant whose settings this code knows; those that scale alike must answer alike."""
    cases: list[Case] = []
    first: list[dict[str, Any]] = []
    for name in only or VARIANTS:
        settings = {**DEFAULTS, **VARIANTS[name]}
        unknown = sorted(set(VARIANTS[name]) - set(Settings.model_fields))
        if unknown:
            print(f"{detector.name}, {name}: left out, no such setting: {', '.join(unknown)}", file=sys.stderr)
            continue
        variables = {f"{PREFIX}{key.upper()}": value for key, value in settings.items()}
        endpoint = detector.deploy(stack, variables=variables)["endpoint"]
        case = Case(
            detector=detector, variant=name, url=endpoint["url"],
            triton_model=triton_model_name(endpoint["name"], int(endpoint["version"])),
        )  # fmt: skip
        answers = [ask(case.url, picture) for picture in case.detector.first_pictures]
        first = first or answers
        if settings["resize"] == "lanczos" and not all(
            alike(one, other, within_pixels=0.01) for one, other in zip(first, answers, strict=True)
        ):
            raise SystemExit(f"{name} answers other boxes than {cases[0].variant}: there is nothing to compare")
        if not any(answer["predictions"] for answer in answers):
            raise SystemExit(f"{name} finds nothing in its pictures: clustering would cost nothing")
        print(f"deployed: {detector.name}, {name}", file=sys.stderr)
        cases.append(case)
    return cases


def measure(stack: Stack, client: LoadClient, cases: Sequence[Case], options: argparse.Namespace) -> None:
    """Let the cases take turns, in changing order; the first round warms up and does not count."""
    counters = {case.triton_model: TritonCounters(stack.triton, [case.triton_model]) for case in cases}
    for number in reporting.rounds_within(options.rounds, limit_s=options.limit):
        for clients in CLIENTS:
            for case in reporting.in_turn(cases, number):
                before, spent = counters[case.triton_model].read(), stack.cpu_s()
                block = client.post(
                    case.url, case.detector.first_pictures, clients=clients,
                    seconds=options.seconds if number else 0.2, least=2 if number else 1,
                )  # fmt: skip
                after, spent = counters[case.triton_model].read(), stack.cpu_s() - spent
                if number:
                    case.series[clients].add(block, cpu_s=spent)
                    models, _ = counted_between(before, after)
                    case.triton[clients].append({counts.name: counts for counts in models})


def markdown(document: Mapping[str, Any]) -> str:
    parts = []
    for name in DETECTORS:
        cases = [case for case in document["cases"] if case["detector"] == name]
        if cases:
            parts += [f"### {name}", said(cases), rates(cases), splits(cases), alone(document["alone_ms"][name])]
    return "\n\n".join(parts)


def said(cases: Sequence[Mapping[str, Any]]) -> str:
    runs = {case["run"]["date"]: case["run"] for case in cases}
    busiest = max(block["client_cpu_ratio"] for case in cases for block in case["clients"].values())
    return "\n".join(reporting.said(run) for run in runs.values()) + (
        f" The load client took at most {100 * busiest:.1f} % of a core."
    )


def rates(cases: Sequence[Mapping[str, Any]]) -> str:
    heads = [
        "variant", *(f"images/s, {clients} client{'s' * (clients > 1)}" for clients in CLIENTS),
        *(f"p50 / p99 ms, {clients}" for clients in CLIENTS),
    ]  # fmt: skip
    rows = [
        [
            case["variant"],
            *(f"{case['clients'][str(clients)]['throughput_rps']:.1f}" for clients in CLIENTS),
            *("{p50_ms:.0f} / {p99_ms:.0f}".format(**case["clients"][str(clients)]) for clients in CLIENTS),
        ]
        for case in cases
    ]
    return reporting.table(heads, rows)


def splits(cases: Sequence[Mapping[str, Any]]) -> str:
    names = list(cases[0]["clients"]["1"]["split_ms"])
    rows = [
        [
            case["variant"],
            *(f"{case['clients']['1']['split_ms'][name]:.1f}" for name in names),
            *(f"{case['clients'][clients]['cpu_ms']:.0f}" for clients in ("1", "8")),
        ]
        for case in cases
    ]
    heads = ["variant", *names, "processor, 1 client", "processor, 8 clients"]
    return "One client, mean milliseconds, and processor milliseconds of both servers for an image:\n\n" + (
        reporting.table(heads, rows)
    )


def alone(parts_ms: Mapping[str, float]) -> str:
    return "Alone, one thread: " + ", ".join(f"{name} {value:.1f} ms" for name, value in parts_ms.items()) + "."


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=[], metavar="VARIANT")
    parser.add_argument("--detector", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--size", choices=sorted(SIZES), default="1920x1080", help="of the light detector's pictures")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each block")
    parser.add_argument("--limit", type=float, default=330.0, help="seconds after which no further round begins")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures; cases not measured now stay in it")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
