"""What rate a load generator process of ours can offer, and what a request costs it, beside locust's FastHttpUser.

    python benchmarks/offered_rate.py [--rounds 7] [--seconds 3] [--json FILE]

All post the same picture to a server that only answers (null_server.py) on another core, which counts them. First as
fast as they can: our open loop has a schedule that asks for more than can be sent. Then at 500 and 1,000 requests/s,
where plain locust has `constant_throughput`. Sides take turns; a round's ratio is to plain locust in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from PIL import Image
from reporting import circumstances, in_turn, said, table, write_json

from tao2serve.loadtest import ClosedLoop, LoadPlan, OpenLoop, Target, run_load_test
from tao2serve.loadtest.plan import Shape

USERS = 8
TOO_MUCH_RPS = 40_000.0
RATES_RPS = (500, 1000)  # of those that are not to send as fast as they can
SETTLE_S = 1.0
PLAIN = """
import os
from pathlib import Path
from locust import FastHttpUser, constant, constant_throughput, task
BODY = Path("picture.jpg").read_bytes()
RATE = float(os.environ["RATE_OF_A_USER"])
class Plain(FastHttpUser):
    wait_time = constant_throughput(RATE) if RATE else constant(0)
    @task
    def post(self):
        self.client.post("/serve/null", data=BODY, headers={"Content-Type": "image/jpeg"})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One generator's turn; `cpu_us` is its processor time for one request."""

    rate_rps: float
    cpu_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="counted in each turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    taken = circumstances(rounds=options.rounds, seconds=options.seconds, users=USERS)
    first, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, null_server(others or [first]) as base:
        os.sched_setaffinity(0, {first})
        folder = Path(name)
        Image.linear_gradient("L").resize((320, 180)).convert("RGB").save(folder / "picture.jpg")
        (folder / "plain.py").write_text(PLAIN, encoding="utf-8")
        sides: dict[str, Callable[[], Turn]] = {
            "plain": lambda: plain(base, folder, options.seconds),
            "closed": lambda: ours(base, folder, options.seconds, ClosedLoop(users=USERS)),
            "open": lambda: ours(base, folder, options.seconds, OpenLoop(rate_rps=TOO_MUCH_RPS)),
        }
        for rate_rps in RATES_RPS:
            sides[f"plain, {rate_rps}/s"] = partial(plain, base, folder, options.seconds, rate_rps)
            sides[f"open, {rate_rps}/s"] = partial(ours, base, folder, options.seconds, OpenLoop(rate_rps=rate_rps))
        turns: dict[str, list[Turn]] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in in_turn(sides, number):
                turns[side].append(sides[side]())
                print(f"round {number + 1}: {side}: {turns[side][-1]}", file=sys.stderr)
    show(taken, turns, options.json)


def show(taken: Mapping[str, Any], turns: Mapping[str, list[Turn]], path: Path | None) -> None:
    rows, figures = [], {}
    for side, found in turns.items():
        rates = [turn.rate_rps for turn in found]
        cpu_us = [turn.cpu_us for turn in found]
        beside = turns[f"plain{side.removeprefix(side.partition(',')[0])}"]
        ratios = [turn.rate_rps / other.rate_rps for turn, other in zip(found, beside, strict=True)]
        cpu_ratios = [other.cpu_us / turn.cpu_us for turn, other in zip(found, beside, strict=True)]
        figures[side] = {
            "rates_rps": [round(rate, 1) for rate in rates],
            "cpu_us": [round(used, 1) for used in cpu_us],
            "ratios": [round(ratio, 3) for ratio in ratios],
            "ratio_median": round(statistics.median(ratios), 3),
            "cpu_ratios": [round(ratio, 3) for ratio in cpu_ratios],
            "cpu_ratio_median": round(statistics.median(cpu_ratios), 3),
        }
        rows.append([side, ranged(rates, 0), ranged(ratios, 2), ranged(cpu_us, 0), ranged(cpu_ratios, 2)])
    print(said(taken))
    print(table(["generator", "requests/s", "× plain", "processor time of one, µs", "plain's ÷ its own"], rows))
    if path is not None:
        write_json({**taken, **figures}, path)


def ranged(values: Sequence[float], digits: int) -> str:
    """Median, and the least and the greatest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


@contextlib.contextmanager
def null_server(cores: list[int]) -> Iterator[str]:
    """Run the server on those cores; yield its base URL."""
    command = [sys.executable, str(Path(__file__).with_name("null_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            os.sched_setaffinity(process.pid, cores)
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def counted(base: str, seconds: float, generator: Callable[[], int]) -> Turn:
    """Wait for a generator to have settled, and return how many requests the server then saw of it."""
    before, deadline_s = posts(base), time.monotonic() + 30
    while posts(base) < before + 100:
        if time.monotonic() > deadline_s:
            raise TimeoutError("the generator sends nothing")
        time.sleep(0.1)
    time.sleep(SETTLE_S)
    pid = generator()
    start, start_s, cpu_s = posts(base), time.perf_counter(), used_cpu_s(pid)
    time.sleep(seconds)
    sent, took_s, used_s = posts(base) - start, time.perf_counter() - start_s, used_cpu_s(pid) - cpu_s
    return Turn(rate_rps=sent / took_s, cpu_us=used_s / sent * 1e6)


def used_cpu_s(pid: int) -> float:
    """Processor time of all threads, to the nanosecond; cpu_times() counts in hundredths of a second."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def posts(base: str) -> int:
    with urllib.request.urlopen(base, timeout=10) as answer:
        return int(answer.read())


def plain(base: str, folder: Path, seconds: float, rate_rps: float = 0.0) -> Turn:
    command = [
        *(sys.executable, "-m", "locust", "-f", "plain.py", "--headless", "--only-summary", "--host", base),
        *("--users", str(USERS), "--spawn-rate", str(USERS), "--run-time", "600s"),
    ]
    variables = {**os.environ, "RATE_OF_A_USER": str(rate_rps / USERS)}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, env=variables, stdout=nowhere, stderr=nowhere) as process:
        try:
            return counted(base, seconds, lambda: process.pid)
        finally:
            process.kill()


def ours(base: str, folder: Path, seconds: float, shape: Shape) -> Turn:
    plan = LoadPlan(
        targets=(Target(url=f"{base}/serve/null"),),
        images=folder / "picture.jpg",
        shape=shape,
        warmup_s=0,
        run_time_s=seconds + SETTLE_S + 1,
        timeout_s=1,  # for what the schedule has left when the time is over
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_load_test, plan)
        turn = counted(base, seconds, our_process)
        result = running.result()
    assert {error.detail for error in result.errors} <= {"open at the end of the test"}, result.errors
    return turn


def our_process() -> int:
    (found,) = (child.pid for child in psutil.Process().children() if "--headless" in child.cmdline())
    return found


if __name__ == "__main__":
    main()
