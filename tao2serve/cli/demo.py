"""`tao2serve demo`: everything once, on a bare machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import Json
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps

if TYPE_CHECKING:
    from tao2serve.demo import DemoResult


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the picture and the report.")
    ] = Path("tao2serve-demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the sandbox up, with the endpoint in it.")] = False,
    json_output: Json = False,
) -> None:
    """Show all of it in two minutes: no GPU, no Docker, no ClearML account.

    Starts a local ClearML-compatible server, Triton and ClearML Serving; deploys the better of two trained TAO
    models; asks the endpoint about a picture; runs a short load test; takes everything down again.

    Example: tao2serve demo --output demo
    """
    from tao2serve.config import home
    from tao2serve.demo import run_demo

    folder = Path(os.path.realpath(output))  # printed at the end, and to be clicked on: without ../
    with quiet(folder / "demo.log", remedy="choose another -o DIR") as terminal, shown_steps(terminal) as steps:
        result = run_demo(output=folder, home=home(), keep=keep, steps=steps)
    if json_output:
        print_json(result.to_dict())
    else:
        print_text(summary(result))


def summary(result: DemoResult) -> str:
    """Return what a newcomer wants to see at the end, and what to type next."""
    latency = result.load.latency_ms.to_dict() if result.load.latency_ms else {}
    url = result.deployment.endpoint.alias_url
    rows = [
        ("endpoint", f"POST {url}  (version {result.deployment.endpoint.version})"),
        ("detections", f"{len(result.answer.predictions)} in {result.picture.name}"),
        ("requests", f"{result.load.requests} in {result.load.plan.run_time_s:g} s, {result.load.failures} failed"),
        ("latency", "  ".join(f"{name} {latency[name]:.1f} ms" for name in ("p50", "p95", "p99") if name in latency)),
        ("picture", str(result.drawing)),
        ("report", str(result.report)),
    ]
    if result.kept:
        rows += [
            ("ask it", f"curl --data-binary @{result.picture} -H 'Content-Type: image/jpeg' {url}"),
            ("use it", 'eval "$(tao2serve sandbox env)" && clearml-serving model list'),
            ("stop it", "tao2serve sandbox down"),
        ]
    else:
        rows += [
            ("state", "everything is down again"),
            ("next", "tao2serve demo --keep   to keep the endpoint up and call it yourself"),
        ]
    return "\n".join(f"{name:<11} {text}" for name, text in rows)
