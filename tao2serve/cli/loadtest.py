"""`tao2serve loadtest`: how fast an endpoint answers under load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.load_job import Job
from tao2serve.cli.load_options import Load, Named, awaited_workers, chosen_load, named_targets, ratio, target_of
from tao2serve.cli.load_text import more_text
from tao2serve.cli.load_told import deployment_of
from tao2serve.cli.options import Json, Service, one_of, seconds
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.cli.tune_job import tune_job
from tao2serve.errors import GateError, UsageError
from tao2serve.remote.carried import OUTPUT

if TYPE_CHECKING:
    from tao2serve.config import Settings
    from tao2serve.loadtest import Gate, LoadPlan
    from tao2serve.loadtest.cold_start import ColdStart
    from tao2serve.loadtest.plan import Order, Protocol, Target
    from tao2serve.steps import Steps


def loadtest(
    endpoint: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ENDPOINT[=WEIGHT]",
            help="Name in the serving service, NAME/VERSION, a URL, or a model on Triton as "
            "triton-grpc://HOST:PORT/MODEL, or triton-http; several share the load.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Pictures to send, or one picture.")
    ] = None,
    users: Annotated[
        int | None,
        typer.Option("--users", metavar="N", help="Closed loop: clients that each send, wait and send again; 1."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="R", help="Open loop: requests per second, whatever became of those before."),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", metavar="LIST", help="A run at each load: 1,2,4,8 users, or 10rps,20rps,40rps."),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="NAME", help="MLPerf's single-stream (p90), server (p99) or offline."),
    ] = None,
    find_max: Annotated[
        bool, typer.Option("--find-max", help="Search the highest rate that reaches every --slo; --rate: begin there.")
    ] = False,
    within: Annotated[
        str | None,
        typer.Option("--within", metavar="PERCENT", help="How close a search comes to the rate that fails; 5%."),
    ] = None,
    search_time: Annotated[
        str | None, typer.Option("--search-time", metavar="TIME", help="How long a search may take in all; 30m.")
    ] = None,
    arrivals: Annotated[
        str | None, typer.Option("--arrivals", metavar="KIND", help="Of an open loop: poisson (default) or constant.")
    ] = None,
    order: Annotated[
        str, typer.Option("--order", metavar="ORDER", help="Of the pictures: cycle, in turn, or sample, at random.")
    ] = "cycle",
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Of all that is random: arrivals, pictures, endpoints.")
    ] = 1,
    run_time: Annotated[str, typer.Option("--run-time", metavar="TIME", help="How long to measure: 20s, 2m.")] = "20s",
    warmup: Annotated[str, typer.Option("--warmup", metavar="TIME", help="Time before that, not counted.")] = "2s",
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Longest wait for a connection or more of an answer.")
    ] = "10s",
    slo: Annotated[
        list[str] | None,
        typer.Option(
            "--slo",
            metavar="LIMIT",
            help="Gate: p50|p90|p95|p99|max=50ms, failure-ratio=1%, throughput=20rps; may be given several times.",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="result.json of an earlier run; what became slower exits 8."),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option("--tolerance", metavar="PERCENT", help="How much slower than --compare is still the same; 10%."),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option("--price-per-hour", metavar="PRICE", help="Of what serves: says what 1,000 images cost."),
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="KIND", help="endpoint, or Triton itself: triton-http, triton-grpc.")
    ] = "endpoint",
    triton: Annotated[
        str | None,
        typer.Option("--triton", metavar="HOST:PORT", help="Triton itself; over gRPC the default is the setting."),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Each ENDPOINT by itself, in turns: an endpoint, then the models behind it."),
    ] = False,
    cold_start: Annotated[
        bool,
        typer.Option(
            "--cold-start", help="First load NAME/VERSION anew on Triton, and measure its first requests by themselves."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="--cold-start also for a version that gets requests: they fail meanwhile.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Try settings of Triton and placements beside what serves, and propose the best."),
    ] = False,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="KNOB=VALUES",
            help="What --tune varies: max_batch_size=1,4,8, queue_delay_us, instances, placement; several times.",
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option("--memory-limit", metavar="SIZE", help="Of --tune: most memory of Triton's processes; 2GiB."),
    ] = None,
    gpu_memory_limit: Annotated[
        str | None,
        typer.Option("--gpu-memory-limit", metavar="SIZE", help="Of --tune: most memory in use on a GPU; 4GiB."),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option("--blocks", metavar="N", help="Of --tune: how often the best are measured again, in turns; 3."),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Processes that generate the load, one core each.")
    ] = 1,
    master: Annotated[
        str | None,
        typer.Option("--master", metavar="HOST:PORT", help="Listen there for --workers that generate the load."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="How many processes --master waits for; 1.")
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option("--worker", metavar="HOST:PORT", help="Join the --master there, without ENDPOINT and --images."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option("--runs", metavar="N", help="How many runs a --worker joins in; 1.")
    ] = None,
    output: Annotated[
        Path,
        OUTPUT,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for report.html, result.json, requests.csv."),
    ] = Path("tao2serve-loadtest"),
    no_clearml: Annotated[
        bool, typer.Option("--no-clearml", help="Do not report to the ClearML task of the endpoint's deployment.")
    ] = False,
    service: Service = None,
    json_output: Json = False,
) -> int:
    """Load-test endpoints with locust and write a report; a missed gate exits 8.

    Example: tao2serve loadtest street --images pictures --users 4 --run-time 20s --slo p99=250ms

    Example of an open loop: tao2serve loadtest street --images pictures --rate 20 --slo p99=250ms

    Example of a sweep: tao2serve loadtest street --images pictures --sweep 1,2,4,8

    Example of a search: tao2serve loadtest street --images pictures --find-max --slo p99=250ms

    Example of two endpoints: tao2serve loadtest street=3 people=1 --images pictures --users 4

    Example of layers: tao2serve loadtest street/4 triton-grpc://127.0.0.1:8001/street_4 --images pictures --layers

    Example of a tuning: tao2serve loadtest street --images pictures --users 4 --tune --slo p99=250ms

    Example of a comparison: tao2serve loadtest street --images pictures --compare old/result.json --tolerance 10%
    """
    from tao2serve.config import home, load_settings
    from tao2serve.loadtest import parse_gate
    from tao2serve.loadtest.addresses import shown_url
    from tao2serve.loadtest.plan import LoadPlan, Target, images_within, make_directory

    if worker is not None:
        return _join(worker, endpoint, processes=processes, runs=runs, master=master, json_output=json_output)
    if runs is not None:
        raise UsageError("--runs", "is of a worker", hint="add: --worker HOST:PORT")
    joining = awaited_workers(master, workers, processes)
    if not endpoint:
        raise UsageError(
            "loadtest", "was not understood: Missing argument 'ENDPOINT'", hint="tao2serve loadtest --help"
        )
    if images is None:
        raise UsageError("loadtest", "was not understood: Missing option '--images'", hint="tao2serve loadtest --help")
    gates = [parse_gate(text) for text in slo or ()]
    load = chosen_load(
        users=users, rate=rate, sweep=sweep, scenario=scenario, arrivals=arrivals, find_max=find_max,
        within=within, search_time=search_time, gates=gates,
    )  # fmt: skip
    tuning = tune_job(
        tune=tune, load=load, endpoints=endpoint, gates=gates, values=values, memory_limit=memory_limit,
        gpu_memory_limit=gpu_memory_limit, blocks=blocks, output=output,
        others={
            "--layers": layers, "--compare": compare is not None, "--cold-start": cold_start,
            "--price-per-hour": price_per_hour is not None, "--master": master is not None,
            "--triton": triton is not None, "--protocol": protocol != "endpoint",
        },
    )  # fmt: skip
    _check_layers(layers, endpoint, load, gates, compare)
    job = Job(
        load=load,
        gates=gates,
        output=output,
        compare=compare,
        tolerance_ratio=_tolerance(tolerance, compare, load),
        price_per_hour=_price(price_per_hour),
        workers=joining,
    )
    kinds: tuple[Protocol, ...] = ("endpoint", "triton-http", "triton-grpc")
    orders: tuple[Order, ...] = ("cycle", "sample")
    chosen, chosen_order = one_of(protocol, kinds, option="--protocol"), one_of(order, orders, option="--order")
    if triton is not None and chosen == "endpoint":
        raise UsageError("--triton", "is of Triton itself", hint="add: --protocol triton-grpc, or triton-http")
    times_s = {name: seconds(text, option=f"--{name}") for name, text in (("run-time", run_time), ("warmup", warmup))}
    timeout_s = seconds(timeout, option="--timeout")
    settings = load_settings({"service": service})
    if tuning is not None:
        tuning.check(images, settings)
    job = replace(job, triton_grpc=settings.triton_grpc)
    named = named_targets(endpoint)
    if cold_start and (len(named) > 1 or chosen != "endpoint" or "://" in named[0].text):
        raise UsageError("--cold-start", "takes one version of an endpoint, by its name", hint="for example: street/3")
    if force and not cold_start:
        raise UsageError("--force", "is of a cold start", hint="add: --cold-start")
    address = triton or (settings.triton_grpc if chosen == "triton-grpc" else "")
    on_triton = [target_of(one, protocol=chosen, triton=address) for one in named]
    plan = LoadPlan(  # refuses what is no time or number before anybody is asked where the endpoints are
        targets=tuple(
            there or Target(url=one.text if "://" in one.text else "http://localhost")
            for one, there in zip(named, on_triton, strict=True)
        ),
        images=images,
        order=chosen_order,
        seed=seed,
        processes=processes,
        run_time_s=times_s["run-time"],
        warmup_s=times_s["warmup"],
        timeout_s=timeout_s,
        endpoint=", ".join(shown_url(one.text) for one in named),
    )
    if compare is not None:
        _require_like(compare, replace(plan, shape=load.loads[0]))
    images_within(images)
    with quiet(home() / "logs" / "loadtest.log") as terminal, shown_steps(terminal) as steps:
        with steps.step("find the endpoint") as step:
            found = [
                Found(target=there) if there else _find(one, service or "")
                for one, there in zip(named, on_triton, strict=True)
            ]
            targets = tuple(one.target for one in found)
            step.note(
                ", ".join(target.shown_url if target.protocol == "endpoint" else target.label for target in targets)
            )
        plan = replace(
            plan,
            targets=targets,
            triton=next((one.triton for one in found if one.triton), ""),
        )
        if not (no_clearml or layers) and len(named) == 1 and on_triton[0] is None:
            job = replace(job, deployed=deployment_of(named[0].text, steps, service=settings.service))
        if cold_start:
            make_directory(output)  # or models would be loaded anew for nothing
            job = replace(job, cold=_cold_start(plan, settings, steps, force=force))
        ways = {"run": job.one, "sweep": job.several, "search": job.several}
        if tuning is not None:
            told, text = tuning.run(plan, load, settings, steps, deployed=job.deployed)
        else:
            told, text = (job.layers if layers else ways[load.kind])(plan, steps)
    if json_output:
        print_json(told)
    else:
        print_text("\n".join([text, *more_text(told)]))
    return 0 if told["passed"] else GateError.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A target, and of an endpoint the Triton behind it, whose counters say where the time goes."""

    target: Target
    triton: str = ""


def _find(named: Named, service_id: str) -> Found:
    from tao2serve.loadtest.plan import Target
    from tao2serve.serving.resolve import resolved

    there = resolved(named.text, service_id=service_id)
    return Found(target=Target(url=there.url, weight=named.weight, behind=there.models), triton=there.triton)


def _check_layers(
    layers: bool, endpoints: Sequence[str], load: Load, gates: Sequence[Gate], compare: Path | None
) -> None:
    if not layers:
        return
    if len(endpoints) < 2:
        raise UsageError(
            "--layers", "sets two targets or more side by side",
            hint="name the outermost first: street/4 triton-http://HOST:8000/street_4 triton-grpc://HOST:8001/street_4",
        )  # fmt: skip
    if load.kind != "run" or load.scenario is not None:
        raise UsageError("--layers", "takes one load", hint="--users N, or --rate R")
    if gates or compare is not None:
        raise UsageError("--layers", "is judged by no gate and no earlier run", hint="leave --slo and --compare out")


def _join(
    address: str, endpoint: list[str] | None, *, processes: int, runs: int | None, master: str | None, json_output: bool
) -> int:
    """Be a worker until the test is over; everything about the test is the master's to say."""
    from tao2serve.config import home
    from tao2serve.loadtest import run_worker

    if endpoint or master is not None:
        raise UsageError("--worker", "takes no ENDPOINT and is no --master", hint="the master says what is sent where")
    log = home() / "logs" / "loadtest.log"
    with quiet(log) as terminal, shown_steps(terminal) as steps, steps.step(f"generate load for {address}"):
        run_worker(address, processes=processes, runs=1 if runs is None else runs)
    if json_output:
        print_json({"outcome": "ok", "master": address, "processes": processes})
    return 0


def _cold_start(plan: LoadPlan, settings: Settings, steps: Steps, *, force: bool) -> ColdStart:
    from tao2serve.loadtest.cold_start import ColdStart, first_requests
    from tao2serve.serving.cold import load_anew

    with steps.step("load the models anew") as step:
        fresh = load_anew(plan.endpoint, settings, force=force)
        step.note(f"{fresh.load_s:.1f} s: {', '.join(fresh.models)}")
    with steps.step("first requests") as step:
        requests_ms = first_requests(fresh.url, plan.images, timeout_s=plan.timeout_s)
        step.note(f"{requests_ms[0]:.0f} ms for the first")
    return ColdStart(models=fresh.models, load_s=fresh.load_s, requests_ms=requests_ms)


def _require_like(compare: Path, plan: LoadPlan) -> None:
    """Refuse an earlier run that this one cannot be compared with before the load, not after it."""
    from tao2serve.loadtest.differences import unlike
    from tao2serve.loadtest.earlier import read_earlier

    document, _ = read_earlier(compare)
    if why := unlike(document, plan):
        hint = "compare runs of the same --users or --rate and --run-time"
        raise UsageError(f"--compare {compare}", "is of a run that this one cannot be compared with", evidence=why,
                         hint=hint)  # fmt: skip


def _tolerance(text: str | None, compare: Path | None, load: Load) -> float:
    from tao2serve.loadtest.compare import TOLERANCE_RATIO

    if compare is None:
        if text is not None:
            raise UsageError("--tolerance", "is of a comparison", hint="add: --compare old/result.json")
        return TOLERANCE_RATIO
    if load.kind != "run":
        raise UsageError("--compare", "takes one run, and this is several", hint="leave --sweep and --find-max out")
    tolerance_ratio = TOLERANCE_RATIO if text is None else ratio(text, option="--tolerance")
    if not 0 <= tolerance_ratio < 1:
        raise UsageError("--tolerance", f"is {text}", hint="0% to 99%")
    return tolerance_ratio


def _price(price: float | None) -> float | None:
    if price is not None and not 0 < price < float("inf"):
        raise UsageError("--price-per-hour", f"is {price:g}", hint="more than 0, in any currency")
    return price
