"""What serving benchmarks say: medians over rounds, Markdown tables, and the sections of docs/performance.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from load_client import Block

from tao2serve.loadtest.summary import percentile

__all__ = [
    "Series",
    "circumstances",
    "code_version",
    "in_turn",
    "replace_section",
    "rounds_within",
    "said",
    "table",
    "write_json",
]

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
_MOST_OF_A_CORE = 0.9
T = TypeVar("T")


@dataclass(slots=True)
class Series:
    """The blocks of one case, one a round."""

    blocks: list[Block] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # of the servers, in each block

    def add(self, block: Block, *, cpu_s: float) -> None:
        self.blocks.append(block)
        self.cpu_s.append(cpu_s)

    @property
    def p50_ms(self) -> float:
        """The median over rounds of each round's median: one disturbed round does not move it."""
        return statistics.median(statistics.median(block.latencies_ms) for block in self.blocks)

    @property
    def p99_ms(self) -> float:
        """Of all requests of all rounds, by nearest rank; with fewer than 100 requests it is the slowest."""
        return percentile(sorted(latency for block in self.blocks for latency in block.latencies_ms), 99)

    @property
    def throughput_rps(self) -> float:
        return statistics.median(block.throughput_rps for block in self.blocks)

    @property
    def cpu_ms(self) -> float:
        """Processor time of the servers for one image, which other work on the machine hardly changes."""
        each = [1e3 * used / len(block.latencies_ms) for used, block in zip(self.cpu_s, self.blocks, strict=True)]
        return statistics.median(each)

    @property
    def client_cpu_ratio(self) -> float:
        """The largest part of one core that the load client took in a round."""
        return max(block.client_cpu_s / block.elapsed_s for block in self.blocks)

    @property
    def requests(self) -> int:
        return sum(len(block.latencies_ms) for block in self.blocks)

    def timing_ms(self, name: str) -> float:
        """The median over rounds of the mean of one entry of the answers' `timing_ms`."""
        means = [
            statistics.fmean(timing[name] for timing in block.timings_ms) for block in self.blocks if block.timings_ms
        ]
        return statistics.median(means) if means else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON; every request's latency is in it, round by round."""
        return {
            "p50_ms": round(self.p50_ms, 2),
            "p99_ms": round(self.p99_ms, 2),
            "throughput_rps": round(self.throughput_rps, 2),
            "cpu_ms": round(self.cpu_ms, 1),
            "requests": self.requests,
            "client_cpu_ratio": round(self.client_cpu_ratio, 3),
            "is_client_saturated": self.client_cpu_ratio > _MOST_OF_A_CORE,
            "latencies_ms": [[round(latency, 2) for latency in block.latencies_ms] for block in self.blocks],
        }


def rounds_within(count: int, *, limit_s: float) -> Iterator[int]:
    """Yield 0, the warm-up, and rounds 1 to `count`; the first always, later ones unless they would pass `limit_s`."""
    start = time.monotonic()
    longest = 0.0
    for number in range(count + 1):
        begun = time.monotonic()
        if number > 1 and begun - start + longest > limit_s:
            print(f"{number - 1} of {count} rounds: the time is used up", file=sys.stderr)
            return
        yield number
        took = time.monotonic() - begun
        longest = max(longest, took) if number else 0.0  # a warm-up is shorter
        print(f"round {number} of {count}: {took:.0f} s", file=sys.stderr)


def in_turn(items: Iterable[T], number: int) -> list[T]:
    """Return the items in the order of this round: forwards and backwards by turns."""
    return list(items)[:: 1 if number % 2 else -1]


def circumstances(**settings: Any) -> dict[str, Any]:
    """Return when, on what and of which code a benchmark was taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
        "settings": settings,
    }


def code_version() -> str:
    """Return the commit measured, with a + behind it if the working tree differs; "" outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changes else "")


def said(taken: Mapping[str, Any]) -> str:
    """Return the circumstances as the sentence above a table."""
    return (
        f"{taken['cores']} shared CPU cores, load {taken['load_before']} at the start, "
        f"{taken['date'][:16].replace('T', ' ')} UTC, Python {taken['python']}, code {taken['code'] or 'unknown'}."
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def replace_section(name: str, text: str, *, document: Path = DOCUMENT) -> None:
    """Put `text` between the marks `<!-- NAME -->` and `<!-- /NAME -->`; raises ValueError if they are not there."""
    whole = document.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, opened, rest = whole.partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"{document} has no section {name}")
    document.write_text(f"{before}{start}\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def write_json(document: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
