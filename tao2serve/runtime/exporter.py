"""Shows what the processes of a service have counted: on one port, or in one file, for all of them.

One process does it, the one that holds a lock; when it ends, the kernel gives the lock to the next.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate, count
from pathlib import Path
from typing import Any, Final

from .cells import Family, close_in_children, living, locked, process_wide, read

__all__ = ["ADDRESS", "FOLDER", "PORT", "TEXTFILE", "Target", "export", "merged", "say_once", "target"]

PORT: Final = "TAO2SERVE_METRICS_PORT"
ADDRESS: Final = "TAO2SERVE_METRICS_ADDRESS"
TEXTFILE: Final = "TAO2SERVE_METRICS_TEXTFILE"
FOLDER: Final = "TAO2SERVE_METRICS_FOLDER"
LOOPBACK: Final = "127.0.0.1"
EVERY_S: Final = 2.0  # the file is written, and a port that was taken is tried again
HANDOVER_S: Final = 0.3

log = logging.getLogger("tao2serve.metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the numbers are shown, and the folder in which the processes keep them."""

    folder: Path
    address: str
    port: int | None
    textfile: Path | None


def target(environment: Mapping[str, str]) -> Target | None:
    """Read the variables; None if neither a port nor a file is named. Raises ValueError for a value that cannot be."""
    port, textfile = environment.get(PORT, "").strip(), environment.get(TEXTFILE, "").strip()
    if not port and not textfile:
        return None
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{PORT} is {port!r}, which is no port")
    if textfile and not textfile.endswith(".prom"):
        raise ValueError(f"{TEXTFILE} is {textfile!r}; node_exporter reads only files that end in .prom")
    address = environment.get(ADDRESS, "").strip() or LOOPBACK
    key = hashlib.sha256(f"{address} {port} {textfile}".encode()).hexdigest()[:12]
    default = Path(tempfile.gettempdir()) / f"tao2serve-metrics-{os.geteuid()}-{key}"
    return Target(
        folder=Path(environment.get(FOLDER, "").strip() or default).absolute(),
        address=address,
        port=int(port) if port else None,
        textfile=Path(textfile).absolute() if textfile else None,
    )


def export(chosen: Target) -> None:
    """Show the numbers from a thread, once in a process. Raises ImportError without prometheus_client."""
    if find_spec("prometheus_client") is None:
        raise ImportError("the package prometheus_client is not installed in this service")
    key = (str(chosen.folder), os.getpid())
    started: dict[tuple[str, int], bool] = process_wide().setdefault("exporting", {})
    if not started.get(key):
        started[key] = True
        threading.Thread(target=_show, args=(chosen,), name="tao2serve-metrics", daemon=True).start()


def say_once(sentence: str) -> None:
    """Log a warning, once in a process."""
    said: set[str] = process_wide().setdefault("said", set())
    if sentence not in said:
        said.add(sentence)
        log.warning("%s", sentence)


def _show(chosen: Target) -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(_Sum(chosen.folder))
    try:
        with locked(chosen.folder / "exporter.lock"):  # waits here while another process shows them
            served = chosen.port is None
            for attempt in count():
                served = served or _serve(chosen, registry, first=attempt == 0)
                if chosen.textfile is not None:
                    _write(chosen.textfile, registry)
                time.sleep(EVERY_S if attempt else HANDOVER_S)
    except Exception as error:
        say_once(f"metrics are counted, but this process cannot show them: {error}")


def _serve(chosen: Target, registry: Any, *, first: bool) -> bool:
    from prometheus_client import start_http_server

    assert chosen.port is not None
    try:
        server, _ = start_http_server(chosen.port, chosen.address, registry)
    except OSError as error:
        if not first:  # a process that ends may lose its lock a moment before its port
            reason = error.strerror or str(error)
            say_once(f"metrics are counted, but not shown on {chosen.address}:{chosen.port}: {reason}; trying again")
        return False
    close_in_children(server.fileno())
    log.info("metrics on http://%s:%d/metrics", chosen.address, chosen.port)
    return True


def _write(path: Path, registry: Any) -> None:
    from prometheus_client import write_to_textfile

    try:
        write_to_textfile(str(path), registry)  # beside it first, then renamed into its place
    except Exception as error:  # the thread goes on: the next time it may be written
        reason = (isinstance(error, OSError) and error.strerror) or error
        say_once(f"metrics are counted, but not written to {path}: {reason}; trying again")


class _Sum:
    """What prometheus_client asks for the metrics."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        workers = GaugeMetricFamily("tao2serve_workers", "Processes of the service that count.")
        workers.add_metric([], living(self._folder))
        yield workers
        for family, series in merged(self._folder).items():
            if family.kind == "histogram":
                histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
                for values, numbers in series.items():
                    histogram.add_metric(values, list(_buckets(family, numbers)), sum_value=numbers[-1])
                yield histogram
            else:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                plain = kind(family.name, family.help, labels=family.labels)
                for values, numbers in series.items():
                    plain.add_metric(values, numbers[0])
                yield plain

    def describe(self) -> Iterable[Any]:
        """Nothing: registering looks up names in it, and collects if it is not there."""
        return ()


def merged(folder: Path) -> dict[Family, dict[tuple[str, ...], list[float]]]:
    """Add up the numbers of all processes; a gauge counts only while its process lives.

    A metric that another release writes in another form is left out: one name cannot be shown in two.
    """
    families: dict[str, Family] = {}
    found: dict[Family, dict[tuple[str, ...], list[float]]] = {}
    for reading in read(folder):
        family = families.setdefault(reading.series.family.name, reading.series.family)
        if family.form != reading.series.family.form:
            continue
        numbers = found.setdefault(family, {}).setdefault(reading.series.values, [0.0] * family.cells)
        if family.kind != "gauge" or reading.alive:
            numbers[:] = map(sum, zip(numbers, reading.numbers, strict=True))
    return found


def _buckets(family: Family, numbers: list[float]) -> Iterator[tuple[str, float]]:
    """Each upper bound, and how many were not above it."""
    bounds = [*(str(bound) for bound in family.bounds), "+Inf"]
    return zip(bounds, accumulate(numbers[:-1]), strict=True)
