"""What the options of `loadtest` ask for together, and which of them exclude each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from tao2serve.cli.options import one_of, percent, seconds
from tao2serve.errors import UsageError

if TYPE_CHECKING:
    from tao2serve.loadtest import Gate, Workers
    from tao2serve.loadtest.plan import Arrivals, Protocol, Shape, Target
    from tao2serve.loadtest.scenarios import Scenario

__all__ = ["Load", "Named", "Search", "awaited_workers", "chosen_load", "named_targets", "ratio", "target_of"]

WEIGHTED: Final = re.compile(r"(.+)=(\d+(?:\.\d+)?)")
VERSIONED: Final = re.compile(r"([A-Za-z]\w*)/(\d+)")
RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:rps|/s)?", re.IGNORECASE)
ON_TRITON: Final = re.compile(r"(?:triton-(http|grpc)|(grpc))://([^/]+)/([^/]+)")

Kind: TypeAlias = Literal["run", "sweep", "search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How a search for the highest rate goes; without `start_rps` it finds out where to begin."""

    start_rps: float | None
    arrivals: Arrivals
    within_ratio: float
    budget_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run at one load, a run at each of several, or a search: `loads` is of one, several or none."""

    loads: tuple[Shape, ...]
    search: Search | None = None
    scenario: Scenario | None = None

    @property
    def kind(self) -> Kind:
        return "search" if self.search else "run" if len(self.loads) == 1 else "sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An ENDPOINT as it was typed, with its weight."""

    text: str
    weight: float


def chosen_load(
    *,
    users: int | None,
    rate: str | None,
    sweep: str | None,
    scenario: str | None,
    arrivals: str | None,
    find_max: bool,
    within: str | None,
    search_time: str | None,
    gates: Sequence[Gate],
) -> Load:
    """Return the load that the options name together; raises UsageError for options that exclude each other."""
    from tao2serve.loadtest.plan import ClosedLoop, OpenLoop
    from tao2serve.loadtest.scenarios import scenario_of, shape_of

    given = [name for name, value in (("--users", users), ("--rate", rate), ("--sweep", sweep)) if value is not None]
    if len(given) > 1:
        raise UsageError(
            " and ".join(given), "exclude each other",
            hint="--users N is a closed loop, --rate R an open one; --sweep 1,2,4 or --sweep 10rps,20rps takes several",
        )  # fmt: skip
    known: tuple[Arrivals, ...] = ("poisson", "constant")
    words = one_of(arrivals, known, option="--arrivals") if arrivals is not None else None
    _only_with_search(find_max, within=within, search_time=search_time)
    rate_rps = _rate(rate) if rate is not None else None
    named = scenario_of(scenario) if scenario is not None else None
    if sweep is not None:
        return _sweep(sweep, words, scenario=scenario, find_max=find_max)
    if named is not None:
        shape = shape_of(named, users=users, rate_rps=rate_rps, arrivals=words, searched=find_max)
        if not find_max and shape is not None:
            return Load(loads=(shape,), scenario=named)
    if find_max:
        return Load(loads=(), search=_search(users, rate_rps, words, within, search_time, gates, named), scenario=named)
    if rate_rps is not None:
        return Load(loads=(OpenLoop(rate_rps=rate_rps, arrivals=words or "poisson"),))
    if words is not None:
        raise UsageError("--arrivals", "is of an open loop", hint="add a rate: --rate 20")
    return Load(loads=(ClosedLoop(users=1 if users is None else users),))


def _only_with_search(find_max: bool, **options: str | None) -> None:
    for name, value in options.items():
        if value is not None and not find_max:
            raise UsageError(f"--{name.replace('_', '-')}", "is of a search", hint="add: --find-max --slo p99=50ms")


def _sweep(text: str, arrivals: Arrivals | None, *, scenario: str | None, find_max: bool) -> Load:
    from tao2serve.loadtest.plan import ClosedLoop
    from tao2serve.loadtest.sweep import parse_sweep

    if scenario is not None:
        raise UsageError("--sweep", "does not go with --scenario, which is one load", hint="leave one of them out")
    if find_max:
        raise UsageError(
            "--sweep", "does not go with --find-max, which chooses the loads", hint="leave one of them out"
        )
    loads = parse_sweep(text, arrivals=arrivals or "poisson")
    if arrivals is not None and isinstance(loads[0], ClosedLoop):
        raise UsageError("--arrivals", "is of an open loop", hint="sweep rates: --sweep 10rps,20rps")
    return Load(loads=loads)


def _search(
    users: int | None,
    rate_rps: float | None,
    arrivals: Arrivals | None,
    within: str | None,
    search_time: str | None,
    gates: Sequence[Gate],
    scenario: Scenario | None,
) -> Search:
    from tao2serve.loadtest.highest import BUDGET_S, WITHIN, require_gates

    if users is not None:
        raise UsageError("--find-max", "searches a rate, not users", hint="leave --users out, or --sweep 1,2,4,8")
    require_gates(gates)
    if scenario is not None and not any(gate.metric == scenario.metric for gate in gates):
        raise UsageError(f"--scenario {scenario.name}", f"is judged by {scenario.metric}", hint="--slo p99=100ms")
    within_ratio = WITHIN if within is None else ratio(within, option="--within")
    if not 0.01 <= within_ratio <= 1:
        raise UsageError("--within", f"is {within}", hint="1% to 100%")
    return Search(
        start_rps=rate_rps,
        arrivals=arrivals or "poisson",
        within_ratio=within_ratio,
        budget_s=BUDGET_S if search_time is None else seconds(search_time, option="--search-time"),
    )


def awaited_workers(master: str | None, workers: int | None, processes: int) -> Workers | None:
    """Return the workers that shall join, None if this machine generates the load itself."""
    from tao2serve.loadtest import Workers
    from tao2serve.loadtest.addresses import host_and_port

    if master is None:
        if workers is not None:
            raise UsageError(
                "--workers", "join a master", hint="--master HOST:PORT; for this machine alone --processes"
            )
        return None
    if processes != 1:
        raise UsageError("--processes", "does not go with --master", hint="each --worker has --processes of its own")
    host, port = host_and_port(master, option="--master", hint="for example: --master 0.0.0.0:5557")
    return Workers(count=1 if workers is None else workers, host=host, port=port)


def ratio(text: str, *, option: str) -> float:
    """Read 5 % of 5, 5% or 2.5 %; raises UsageError for anything else."""
    return percent(text, option=option) / 100


def _rate(text: str) -> float:
    match = RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UsageError("--rate", f"is {text!r}, not a rate", hint="requests per second: --rate 20")
    return float(match[1])


def named_targets(texts: Sequence[str]) -> tuple[Named, ...]:
    """Read `street=3 people=1`; without a weight it is 1. Raises UsageError for what is named twice or not at all."""
    from tao2serve.loadtest.addresses import shown_url

    named = [Named(text=text, weight=weight) for text, weight in map(_weighted, texts)]
    twice = {one.text for one in named if sum(other.text == one.text for other in named) > 1}
    if twice:
        first = shown_url(min(twice))
        raise UsageError(f"endpoint {first}", "is named twice", hint=f"give it a weight: {first}=2")
    return tuple(named)


def _weighted(text: str) -> tuple[str, float]:
    match = WEIGHTED.fullmatch(text)
    if match is None or "?" in text:  # `=1` may end a URL's query
        return text, 1.0
    if not float(match[2]):
        raise UsageError(f"endpoint {match[1]}", "has weight 0, so it gets no request", hint="leave it out")
    return match[1], float(match[2])


def target_of(named: Named, *, protocol: Protocol, triton: str) -> Target | None:
    """Return a target on Triton; None for an endpoint, which the serving service knows.

    `triton` is HOST:PORT, "" if it was not named. Raises UsageError for a Triton whose address is not known.
    """
    from tao2serve.loadtest.addresses import shown_url
    from tao2serve.loadtest.plan import Target

    if named.text.startswith(("grpc://", "triton-")) and "://" in named.text:
        match = ON_TRITON.fullmatch(named.text)
        if match is None:
            raise UsageError(
                "endpoint",
                f"{shown_url(named.text)!r} is not one",
                hint="triton-grpc://HOST:PORT/MODEL, or triton-http",
            )
        over: Protocol = "triton-http" if match[1] == "http" else "triton-grpc"
        return Target(url=match[3], protocol=over, model=match[4], weight=named.weight)
    is_url = named.text.startswith(("http://", "https://"))
    if "://" in named.text and not is_url:
        raise UsageError(
            "endpoint", f"{shown_url(named.text)!r} is not one",
            hint="NAME, NAME/VERSION, http://HOST:PORT/serve/NAME or triton-grpc://HOST:PORT/MODEL",
        )  # fmt: skip
    if protocol == "endpoint":
        return None
    if is_url:
        raise UsageError(
            f"--protocol {protocol}", f"takes models, not the URL {shown_url(named.text)}", hint="street/4, street_4"
        )
    if not triton:
        port = 8000 if protocol == "triton-http" else 8001
        raise UsageError(
            f"--protocol {protocol}", "needs the address of Triton", hint=f"--triton HOST:PORT, often port {port}"
        )
    match = VERSIONED.fullmatch(named.text)
    model = f"{match[1]}_{match[2]}" if match else named.text
    address = re.sub(r"^(https?|grpc)://", "", triton).rstrip("/")
    return Target(url=address, protocol=protocol, model=model, weight=named.weight)
