"""What a load test is asked to do, and what it says while it runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from tao2serve.errors import UsageError
from tao2serve.images import find_images
from tao2serve.loadtest.addresses import has_userinfo, shown_url

__all__ = [
    "Arrivals",
    "ClosedLoop",
    "LoadPlan",
    "LoadProgress",
    "OpenLoop",
    "Order",
    "Protocol",
    "Shape",
    "Target",
    "Workers",
    "digest_of",
    "images_within",
    "make_directory",
]

Protocol: TypeAlias = Literal["endpoint", "triton-http", "triton-grpc"]
Arrivals: TypeAlias = Literal["poisson", "constant"]
Order: TypeAlias = Literal["cycle", "sample"]

# The images are held in memory by the load generator, so that reading files is no part of the measurement.
_IMAGES_LIMIT_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go: an endpoint by its URL, or a Triton model by the server's address and its name.

    Raises UsageError if that cannot be.
    """

    url: str  # http(s)://HOST:PORT/serve/NAME; of Triton HOST:PORT
    protocol: Protocol = "endpoint"
    model: str = ""  # on Triton; "" for an endpoint
    weight: float = 1.0  # share of the requests, among the targets of a plan
    behind: tuple[str, ...] = ()  # of an endpoint: the models on Triton that answer it, as far as they are known

    def __post_init__(self) -> None:
        if self.protocol == "endpoint":
            _require_url(self.url)
        elif not self.model:
            raise UsageError(f"Triton at {self.url}", "needs the name of a model")
        if not 0 < self.weight < math.inf:
            raise UsageError(f"weight of {self.label}", f"{self.weight:g} is not possible", hint="more than 0")

    @property
    def shown_url(self) -> str:
        """The address without what may be secret in it, for all that is shown or kept."""
        return shown_url(self.url)

    @property
    def label(self) -> str:
        """What reports call it."""
        if self.protocol == "endpoint":
            return urlsplit(self.url).path or "/"
        return f"{self.protocol} {self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """Each of `users` posts an image, waits for the whole answer, and posts the next one."""

    users: int = 1

    def __post_init__(self) -> None:
        if self.users < 1:
            raise UsageError("users", f"{self.users} is not a number of users", hint="at least 1")

    def __str__(self) -> str:
        return f"closed loop, {self.users} user{'' if self.users == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """Requests start by a schedule, whatever became of those before; latency counts from the intended start."""

    rate_rps: float  # all processes together
    arrivals: Arrivals = "poisson"

    def __post_init__(self) -> None:
        if not 0 < self.rate_rps < math.inf:
            raise UsageError("rate", f"{self.rate_rps:g} requests/s is not possible", hint="more than 0")

    def __str__(self) -> str:
        return f"open loop, {self.rate_rps:g} requests/s, {self.arrivals} arrivals"


Shape: TypeAlias = ClosedLoop | OpenLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What is sent where, in which shape, and for how long.

    The warm-up comes before the run time and outside it. `timeout_s` is the longest wait for a connection or
    for the next bytes of an answer; what takes longer is a failure of kind `timeout`.
    Raises UsageError if a number makes no sense.
    """

    targets: tuple[Target, ...]
    images: Path  # a directory of images, or one image
    shape: Shape = ClosedLoop()
    order: Order = "cycle"  # of the images: in turn, or drawn at random
    seed: int = 1  # of arrivals, of drawn images and of the choice among targets
    processes: int = 1  # that generate the load
    run_time_s: float = 20.0
    warmup_s: float = 2.0
    timeout_s: float = 10.0
    endpoint: str = ""  # name and version, for the report only
    model: str = ""  # for the report only
    triton: str = ""  # HOST:PORT of its gRPC, to read its statistics; "": not known
    triton_model: str = ""  # of a plan with one target: the model behind it, in place of the target's own `behind`
    triton_metrics: str = ""  # URL of its metrics page, for GPUs; "": port 8002 of the same host, if it is there

    def __post_init__(self) -> None:
        if not self.targets:
            raise UsageError("load test", "has no target", hint="name an endpoint")
        if self.processes < 1:
            raise UsageError("processes", f"{self.processes} is not a number of processes", hint="at least 1")
        _require(self.run_time_s > 0, "run time", self.run_time_s, "more than 0 s")
        _require(self.warmup_s >= 0, "warm-up", self.warmup_s, "0 s or more")
        _require(self.timeout_s > 0, "timeout", self.timeout_s, "more than 0 s")

    @property
    def url(self) -> str:
        """The first target's, as it may be shown."""
        return self.targets[0].shown_url

    @property
    def is_open(self) -> bool:
        return isinstance(self.shape, OpenLoop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Load generator processes that somebody else starts (`run_worker`), on this machine or on others.

    They join at HOST:PORT, where this machine listens; without encryption or passwords, so only a trusted network
    should reach it. They get the images from here.
    """

    count: int
    host: str = "127.0.0.1"
    port: int = 5557
    wait_s: float = 60.0  # for all of them

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError("workers", f"{self.count} is not a number of workers", hint="at least 1")
        if not 0 < self.port < 65536:
            raise UsageError("workers", f"{self.port} is not a port", hint="HOST:PORT, 1 to 65535")


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # an unclosed bracket
        usable = False
    if not usable:
        raise UsageError(
            "endpoint URL", f"{shown_url(url)!r} is not an http(s) URL", hint="http://HOST:PORT/serve/NAME"
        )
    if has_userinfo(url):
        raise UsageError(
            "endpoint URL",
            f"{shown_url(url)} has a user or password, which a load test does not send",
            hint="leave them out, and test at an address that asks for none, such as the inference service's own port",
        )


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


def digest_of(images: Sequence[Path]) -> str:
    """Return the SHA-256 by which other images, or the same in another order, are known."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(hashlib.sha256(image.read_bytes()).digest())
    return digest.hexdigest()


def make_directory(directory: Path) -> None:
    """Make the folder for what a test leaves; raises UsageError if that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            str(directory), "cannot be written to", evidence=error.strerror or str(error), hint="choose another -o DIR"
        ) from error
