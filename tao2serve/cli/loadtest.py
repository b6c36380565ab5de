"""`tao2serve loadtest`: how fast an endpoint answers under load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import Json, Service, seconds
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps

if TYPE_CHECKING:
    from tao2serve.loadtest import LoadResult, Verdict


def loadtest(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name in the serving service, or a URL.")],
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Pictures to post, in turn.")],
    users: Annotated[
        int, typer.Option("--users", metavar="N", help="Clients that each post, wait and post again.")
    ] = 1,
    run_time: Annotated[str, typer.Option("--run-time", metavar="TIME", help="How long to measure: 20s, 2m.")] = "20s",
    warmup: Annotated[str, typer.Option("--warmup", metavar="TIME", help="Time before that, not counted.")] = "2s",
    slo: Annotated[
        list[str] | None,
        typer.Option(
            "--slo",
            metavar="LIMIT",
            help="Gate: p99=50ms, failure-ratio=1%, throughput=20rps; may be given several times.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for report.html, result.json, requests.csv.")
    ] = Path("tao2serve-loadtest"),
    service: Service = None,
    json_output: Json = False,
) -> int:
    """Load-test an endpoint with locust and write a report; a missed gate exits 8.

    Example: tao2serve loadtest street --images pictures --users 4 --run-time 20s --slo p99=250ms
    """
    from tao2serve.config import home
    from tao2serve.errors import GateError
    from tao2serve.loadtest import (
        ClosedLoop,
        LoadPlan,
        Target,
        document,
        evaluate,
        parse_gate,
        passed,
        run_load_test,
        write_report,
    )  # fmt: skip
    from tao2serve.serving.resolve import endpoint_url

    gates = [parse_gate(text) for text in slo or ()]
    run_time_s, warmup_s = seconds(run_time, option="--run-time"), seconds(warmup, option="--warmup")
    with quiet(home() / "logs" / "loadtest.log") as terminal, shown_steps(terminal) as steps:
        with steps.step("find the endpoint") as step:
            url = endpoint_url(endpoint, service_id=service or "")
            step.note(url)
        plan = LoadPlan(
            targets=(Target(url=url),),
            images=images,
            shape=ClosedLoop(users=users),
            run_time_s=run_time_s,
            warmup_s=warmup_s,
            endpoint=endpoint,
        )
        with steps.step("load test") as step:
            result = run_load_test(plan, directory=output, on_progress=lambda now: step.news(str(now)))
            step.note(f"{result.requests} requests, {result.failures} failures")
        with steps.step("write the report") as step:
            verdicts = evaluate(result, gates)
            report = write_report(result, verdicts=verdicts, directory=output)
            step.note(str(report))
    if json_output:
        print_json(document(result, verdicts, report=report))
    else:
        print_text(summary(result, verdicts))
    return 0 if passed(result, verdicts) else GateError.exit_code


def summary(result: LoadResult, verdicts: tuple[Verdict, ...]) -> str:
    """Return the result in a few lines of text."""
    from tao2serve.loadtest import passed

    lines = [f"requests    {result.requests} ({result.failures} failed), {result.throughput_rps:.1f} per second"]
    if result.latency_ms is not None:
        latency = result.latency_ms.to_dict()
        lines.append(
            "latency     " + "  ".join(f"{name} {latency[name]:.1f} ms" for name in ("p50", "p95", "p99", "max"))
        )
    if result.client.saturated:
        lines.append(f"warning     the client was the bottleneck: {result.client.reason}")
    if not passed(result, verdicts) and all(verdict.passed for verdict in verdicts):
        lines.append(
            f"MISSED      {result.failures} of {result.requests} requests failed; say --slo failure-ratio=… to allow it"
        )
    lines += [f"error       {error.count} x {error.kind}: {error.detail}" for error in result.errors]
    for verdict in verdicts:
        seen = "nothing measured" if verdict.observed is None else f"{verdict.observed:.4g}{verdict.gate.unit}"
        lines.append(f"{'reached' if verdict.passed else 'MISSED '}     {verdict.gate.text}, measured {seen}")
    return "\n".join(lines)
