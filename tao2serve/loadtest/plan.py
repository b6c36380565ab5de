"""What a load test is asked to do, and what it says while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tao2serve.errors import UsageError
from tao2serve.images import find_images

__all__ = ["LoadPlan", "LoadProgress", "images_within", "make_directory"]

# The images are held in memory by the load generator, so that reading files is no part of the measurement.
_IMAGES_LIMIT_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """A closed loop: each of `users` posts an image, waits for the whole answer, and posts the next one.

    The warm-up comes before the run time and outside it. `timeout_s` is the longest wait for a connection or
    for the next bytes of an answer; what takes longer is a failure of kind `timeout`.
    Raises UsageError if a number or the URL makes no sense.
    """

    url: str
    images: Path  # a directory of images, or one image
    users: int = 1
    run_time_s: float = 20.0
    warmup_s: float = 2.0
    timeout_s: float = 10.0
    endpoint: str = ""  # name and version, for the report only
    model: str = ""  # for the report only

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:  # an unclosed bracket
            usable = False
        if not usable:
            raise UsageError("endpoint URL", f"{self.url!r} is not an http(s) URL", hint="http://HOST:PORT/serve/NAME")
        if self.users < 1:
            raise UsageError("users", f"{self.users} is not a number of users", hint="at least 1")
        _require(self.run_time_s > 0, "run time", self.run_time_s, "more than 0 s")
        _require(self.warmup_s >= 0, "warm-up", self.warmup_s, "0 s or more")
        _require(self.timeout_s > 0, "timeout", self.timeout_s, "more than 0 s")


def _require(fulfilled: bool, subject: str, value_s: float, hint: str) -> None:
    if not fulfilled or not math.isfinite(value_s):
        raise UsageError(subject, f"{value_s:g} s is not possible", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """How far a running load test is, about once per second."""

    phase: str  # starting | warm-up | run | finishing
    elapsed_s: float  # since the warm-up began
    total_s: float  # warm-up and run time
    requests: int  # answered so far, warm-up included
    failures: int

    def __str__(self) -> str:
        return f"{self.phase}, {self.elapsed_s:.0f} of {self.total_s:.0f} s, {self.requests} requests"


def images_within(source: Path) -> tuple[Path, ...]:
    """Return the images of a folder by name, or the one image, as much as fits in 256 MiB.

    Raises InputError if there is no image.
    """
    chosen: list[Path] = []
    total_bytes = 0
    for path in find_images(source):
        size_bytes = path.stat().st_size
        if not chosen or total_bytes + size_bytes <= _IMAGES_LIMIT_BYTES:
            chosen.append(path)
            total_bytes += size_bytes
    return tuple(chosen)


def make_directory(directory: Path) -> None:
    """Make the folder for what a test leaves; raises UsageError if that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            str(directory), "cannot be written to", evidence=error.strerror or str(error), hint="choose another -o DIR"
        ) from error
