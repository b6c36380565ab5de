"""The result of an earlier load test, read from the files it left."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tao2serve.errors import InputError
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.window import is_measured, phase_at

__all__ = ["Measured", "measured_of", "read_earlier"]

_HINT: Final = "give the result.json that `tao2serve loadtest` wrote; one of an older version must be measured again"
_LARGEST_BYTES: Final = 256 * 2**20
_LARGEST_DOCUMENT_BYTES: Final = 64 * 2**20
_LARGEST_NUMBER: Final = 1e15  # beyond it integers of any length, which float() refuses


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Latencies of the successful requests of a run time in the order of their start; None, and why, if not known."""

    latencies_ms: tuple[float, ...] | None
    why_not: str = ""


def measured_of(result: LoadResult) -> Measured:
    """Return what a result holds of single requests; in an open loop from the intended start."""
    within = (record for record in result.records if record.ok and is_measured(result.plan, record))
    is_open = result.plan.is_open
    return Measured(latencies_ms=tuple(record.response_ms if is_open else record.latency_ms for record in within))


def read_earlier(path: Path) -> tuple[dict[str, Any], Measured]:
    """Return the document of an earlier run and, from the requests.csv beside it, its latencies.

    Raises InputError if it is not the document of one run, or lacks what is compared.
    """
    try:
        if path.stat().st_size > _LARGEST_DOCUMENT_BYTES:
            raise InputError(str(path), "is larger than 64 MiB, so no result of one load test", hint=_HINT)
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error), hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "is no JSON document", evidence=str(error), hint=_HINT) from error
    if isinstance(document, dict) and "runs" in document:
        raise InputError(str(path), "holds several runs, and one is compared with one", hint=_HINT)
    try:
        _require_run(document)
    except (KeyError, TypeError, ValueError) as error:
        fact = "is no result of a load test that can be compared"
        raise InputError(str(path), fact, evidence=_evidence(document, error), hint=_HINT) from error
    return document, _measured(path.with_name("requests.csv"), document)


def _evidence(document: object, error: Exception) -> str:
    said = f"it lacks {error.args[0]}" if isinstance(error, KeyError) else str(error)
    environment = document.get("environment") if isinstance(document, dict) else None
    version = environment.get("tao2serve") if isinstance(environment, dict) else None
    return f"{said}; written by tao2serve {version}" if version else said


def _require_run(document: object) -> None:
    """Raise KeyError, TypeError or ValueError unless every member that is compared is there and possible."""
    held = _mapping(document, "the document")
    for name in ("requests", "failures", "throughput_rps", "run_time_s"):
        _number(held[name], name)
    if held["failures"] > held["requests"]:
        raise ValueError("more failures than requests")
    latency_ms = _mapping(held["latency_ms"], "latency_ms")
    for name in ("p50", "p90", "p95", "p99", "max"):
        if latency_ms[name] is not None:
            _number(latency_ms[name], f"latency_ms.{name}")
    if not isinstance(held["shape"], str):
        raise TypeError("shape is no text")
    if held["rate_rps"] is not None:
        _number(held["rate_rps"], "rate_rps")
    if not isinstance(_mapping(held["client"], "client")["saturated"], bool):
        raise TypeError("client.saturated is neither true nor false")
    _mapping(held["environment"], "environment")
    targets = held["targets"]
    if not isinstance(targets, list) or not targets:
        raise TypeError("targets is no list of targets")
    for target in targets:
        for name in ("url", "protocol", "model"):
            if not isinstance(_mapping(target, "a target")[name], str):
                raise TypeError(f"{name} of a target is no text")
        _number(target.get("weight", 1.0), "weight of a target")
        urlsplit(target["url"])
    series = _mapping(held.get("series") or {}, "series")
    _number(series.get("interval_s") or 0.0, "interval_s")
    for point in series.get("points") or ():
        _number(_mapping(point, "a point of series")["throughput_rps"], "throughput_rps")
        _number(abs(point["start_s"]), "start_s")


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} is no JSON object")
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST_NUMBER:
        raise ValueError(f"{name} is {_short(value)}")
    return value


def _short(value: object) -> str:
    """Return a value as it is written, not a whole page of it."""
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:  # text of 10**5000 is refused by Python itself
        return "a number beyond all use"
    return repr(value)[:40]


def _measured(path: Path, document: Mapping[str, Any]) -> Measured:
    """Read the latencies that the document's percentiles were made of; a file of another run is no such thing."""
    column = "latency_ms" if document["rate_rps"] is None else "response_ms"
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return Measured(latencies_ms=None, why_not=f"{path} is larger than 256 MiB")
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        within = [row for row in rows if _is_measured(row, document) and not row["error"]]
        latencies_ms = tuple(_number(float(row[column]), column) for row in within)
    except OSError as error:
        return Measured(latencies_ms=None, why_not=f"{path}: {error.strerror or error}")
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        return Measured(latencies_ms=None, why_not=f"{path} cannot be read ({type(error).__name__}: {error})")
    if len(latencies_ms) != document["requests"] - document["failures"]:
        return Measured(latencies_ms=None, why_not=f"{path} is not of the same run")
    return Measured(latencies_ms=latencies_ms)


def _is_measured(row: Mapping[str, str], document: Mapping[str, Any]) -> bool:
    at = phase_at(
        intended_s=float(row["intended_s"]),
        start_s=float(row["start_s"]),
        is_open=document["rate_rps"] is not None,
        run_time_s=document["run_time_s"],
    )
    return at == "run"
