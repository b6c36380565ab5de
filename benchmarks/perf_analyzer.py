"""Our load test beside NVIDIA's perf_analyzer, on one Triton model that waits: do they say the same?

    pip install 'tao2serve[sandbox,loadtest]'
    python benchmarks/perf_analyzer.py --json benchmarks/results/perf_analyzer.json     # 4 minutes

The real binary comes out of the wheel of tritonclient 2.51.0 (later wheels have none); the two libraries that it needs
and Debian has not are those that the wheel of nvidia-pytriton holds.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from reporting import circumstances, in_turn, said, table, write_json
from waiting_triton import WaitingTriton, waiting_triton

from tao2serve.loadtest import ClosedLoop, LoadPlan, Target, run_load_test
from tao2serve.sandbox.triton_server import triton_binary

__all__ = ["PROTOCOLS", "Figures", "PerfAnalyzer", "measure_ours", "target_of", "write_picture"]

WHEEL = "tritonclient==2.51.0"
MODEL = "waits"
PROTOCOLS = ("triton-grpc", "triton-http")
CONCURRENCY = (1, 2, 4)
_BINARY = "tritonclient-2.51.0.data/data/bin/perf_analyzer"
_LIBRARIES = {"libb64-*.so.0d": "libb64.so.0d", "libcudart-*.so.12*": "libcudart.so.12"}
_WINDOWS = 3  # perf_analyzer takes at least three and says what they come to together
_LIMIT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    p50_ms: float
    throughput_rps: float


class PerfAnalyzer:
    """The binary of the wheel, laid out in a folder of ours."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._program = folder / "perf_analyzer"
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        platforms = ["--platform", "manylinux1_x86_64", "--dest", str(folder)]
        done = subprocess.run([*download, *platforms, WHEEL], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{WHEEL} cannot be downloaded:\n{done.stderr}")
        (wheel,) = folder.glob("tritonclient-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            self._program.write_bytes(archive.read(_BINARY))
        self._program.chmod(0o755)
        bundled = triton_binary().parents[3] / "nvidia_pytriton.libs"
        for pattern, name in _LIBRARIES.items():  # the wheel has put a digest into their names
            (found,) = bundled.glob(pattern)
            (folder / name).symlink_to(found)
        self._libraries = f"{folder}:{bundled}"

    def measure(self, triton: WaitingTriton, protocol: str, *, concurrency: int, window_s: float) -> Figures:
        """Return what it reports for three windows of `window_s`, whether it calls them stable or not."""
        report = self._folder / "report.csv"
        report.unlink(missing_ok=True)
        is_grpc = protocol == "triton-grpc"
        command = [
            *(str(self._program), "-m", MODEL, "-i", "grpc" if is_grpc else "http"),
            *("-u", triton.grpc if is_grpc else triton.http, "--concurrency-range", str(concurrency)),
            *("--measurement-interval", str(round(window_s * 1000)), "--max-trials", str(_WINDOWS)),
            *("--stability-percentage", "999", "-f", str(report)),
        ]
        environment = {**os.environ, "LD_LIBRARY_PATH": self._libraries}
        done = subprocess.run(
            command, env=environment, cwd=self._folder, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
        if done.returncode or not report.exists():
            raise RuntimeError(f"perf_analyzer ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        with report.open(encoding="utf-8", newline="") as stream:
            (row,) = csv.DictReader(stream)
        return Figures(p50_ms=float(row["p50 latency"]) / 1000, throughput_rps=float(row["Inferences/Second"]))


def target_of(triton: WaitingTriton, protocol: str, model: str = MODEL) -> Target:
    if protocol == "triton-grpc":
        return Target(url=triton.grpc, protocol="triton-grpc", model=model)
    return Target(url=triton.http, protocol="triton-http", model=model)


def measure_ours(target: Target, images: Path, *, concurrency: int, run_time_s: float) -> Figures:
    """Return what our load test says; it ends the benchmark if a request failed or the client was the limit."""
    result = run_load_test(
        LoadPlan(
            targets=(target,),
            images=images,
            shape=ClosedLoop(users=concurrency),
            run_time_s=run_time_s,
            warmup_s=0.5,
        )
    )
    if result.failures or result.latency_ms is None or result.client.saturated:
        raise RuntimeError(f"{result.failures} failures {result.errors}; {result.client.reason}")
    return Figures(p50_ms=result.latency_ms.p50, throughput_rps=result.throughput_rps)


def write_picture(folder: Path) -> Path:
    """Write a JPEG of the network's size into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "gradient.jpg"
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(path)
    return path


def _cases() -> Iterator[tuple[str, int]]:
    for protocol in PROTOCOLS:
        for concurrency in CONCURRENCY:
            yield protocol, concurrency


def _rows(measured: dict[tuple[str, int], dict[str, list[Figures]]]) -> list[dict[str, Any]]:
    """One row a case: medians over rounds, and the largest difference that one round had."""
    rows = []
    for (protocol, concurrency), sides in measured.items():
        pairs = list(zip(sides["ours"], sides["theirs"], strict=True))
        row: dict[str, Any] = {"protocol": protocol, "concurrency": concurrency}
        for name in ("p50_ms", "throughput_rps"):
            ours, theirs = ([getattr(pair[side], name) for pair in pairs] for side in (0, 1))
            ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            row[name] = {
                "ours": round(statistics.median(ours), 2),
                "theirs": round(statistics.median(theirs), 2),
                "ratio": round(statistics.median(ratios), 3),
                "furthest": round(max(ratios, key=lambda ratio: abs(ratio - 1)), 3),
                "rounds": [[round(mine, 2), round(other, 2)] for mine, other in zip(ours, theirs, strict=True)],
            }
        rows.append(row)
    return rows


def _shown(rows: list[dict[str, Any]]) -> str:
    heads = (
        "target", "concurrency", "p50 ours", "p50 perf_analyzer", "ratio", "requests/s ours",
        "requests/s perf_analyzer", "ratio",
    )  # fmt: skip
    return table(heads, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [f"`{row['protocol']}`", str(row["concurrency"])]
    for name, unit in (("p50_ms", " ms"), ("throughput_rps", "")):
        figures = row[name]
        cells += [
            f"{figures['ours']:.1f}{unit}",
            f"{figures['theirs']:.1f}{unit}",
            f"{figures['ratio']:.3f} ({figures['furthest']:.3f})",
        ]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each side, in each round")
    parser.add_argument("--wait", type=float, default=25.0, help="milliseconds that the model takes")
    parser.add_argument("--json", type=Path, help="where to keep every figure")
    options = parser.parse_args()
    settings = {"rounds": options.rounds, "seconds": options.seconds, "wait_ms": options.wait}
    taken = circumstances(**settings, locust=version("locust"), tritonclient=version("tritonclient"))
    measured: dict[tuple[str, int], dict[str, list[Figures]]] = {case: {"ours": [], "theirs": []} for case in _cases()}
    with tempfile.TemporaryDirectory(prefix="tao2serve-benchmark-") as name:
        folder = Path(name)
        analyzer, picture = PerfAnalyzer(folder / "perf_analyzer"), write_picture(folder / "images")
        with waiting_triton(folder / "triton", wait_ms=options.wait) as triton:
            for number in range(options.rounds):
                for case in _cases():
                    protocol, concurrency = case
                    for side in in_turn(("ours", "theirs"), number):
                        if side == "ours":
                            figures = measure_ours(
                                target_of(triton, protocol), picture, concurrency=concurrency,
                                run_time_s=options.seconds,
                            )  # fmt: skip
                        else:
                            figures = analyzer.measure(
                                triton, protocol, concurrency=concurrency, window_s=options.seconds / _WINDOWS
                            )
                        measured[case][side].append(figures)
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    rows = _rows(measured)
    print(f"{said(taken)}\n\n{_shown(rows)}")
    if options.json:
        write_json({**taken, "cases": rows}, options.json)


if __name__ == "__main__":
    main()
