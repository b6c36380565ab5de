"""`demo`: all of it once, on this machine, in a sandbox of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.config import load_settings
from tao2serve.deploy import Deployment, DeployRequest, deploy
from tao2serve.errors import Tao2ServeError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult, Target, document, run_load_test, write_report
from tao2serve.registry.source import Source
from tao2serve.registry.trained import Selectors, find_trained_models
from tao2serve.sandbox import stack
from tao2serve.sandbox.environment import client_environment
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.samples import PROJECT, pictures
from tao2serve.sandbox.state import SandboxState
from tao2serve.serving.client import Answer, ask
from tao2serve.serving.drawing import save_drawing
from tao2serve.steps import Steps
from tao2serve.values import TrainedModel

__all__ = ["DemoResult", "run_demo"]

ENDPOINT: Final = "street"
LOAD_USERS, LOAD_RUN_S, LOAD_WARMUP_S = 2, 10.0, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo did and where its files are."""

    deployment: Deployment
    answer: Answer
    picture: Path
    drawing: Path
    load: LoadResult
    report: Path
    state: SandboxState
    kept: bool
    steps: Steps

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve demo`."""
        return {
            "outcome": "ok",
            "endpoint": self.deployment.endpoint.alias_url,
            "version": str(self.deployment.endpoint.version),
            "chosen": self.deployment.source.reason,
            "detections": len(self.answer.predictions),
            "predictions": self.answer.document["predictions"],
            "picture": str(self.picture),
            "drawing": str(self.drawing),
            "load": document(self.load, (), report=self.report),
            "report": str(self.report),
            "kept": self.kept,
            "steps": self.steps.to_list(),
        }


def run_demo(*, output: Path, home: Path, keep: bool, steps: Steps) -> DemoResult:
    """Run the demo and leave its files in `output`; what it started is down again at the end, unless `keep`.

    With `keep` the sandbox is the one of `home` and stays up; without, it is one of its own that vanishes.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _sandbox(output, home, keep=keep, steps=steps) as state:
        selectors = Selectors(project=PROJECT)
        with steps.step("look at the TAO runs in ClearML") as step:
            step.note("; ".join(_in_words(model) for model in find_trained_models(selectors)))
        picture = Path(shutil.copy(pictures()[0], output))
        body = picture.read_bytes()
        request = DeployRequest(source=Source(selectors=selectors), endpoint=ENDPOINT, image=body)
        deployment = deploy(request, load_settings(), steps=steps)
        with steps.step("ask the endpoint about a picture") as step:
            answer = ask(deployment.endpoint.alias_url, body, media_type="image/jpeg")
            drawing = save_drawing(body, answer.predictions, path=output / "detections.png")
            step.note(f"{len(answer.predictions)} detections in {picture.name}")
        with steps.step(f"load test, {LOAD_RUN_S:g} s with {LOAD_USERS} users") as step:
            plan = _load_plan(deployment, state)
            load = run_load_test(plan, directory=output, on_progress=lambda now: step.news(str(now)))
            report = write_report(load, verdicts=(), directory=output)
            step.note(f"{load.requests} requests, {load.failures} failures")
    return DemoResult(
        deployment=deployment, answer=answer, picture=picture, drawing=drawing, load=load, report=report,
        state=state, kept=keep, steps=steps,
    )  # fmt: skip


@contextlib.contextmanager
def _sandbox(output: Path, home: Path, *, keep: bool, steps: Steps) -> Iterator[SandboxState]:
    own = home if keep else Path(tempfile.mkdtemp(prefix="tao2serve-demo-"))
    was_up = keep and stack.is_up(own)
    finished = False
    try:
        with steps.step("start the sandbox") as step:
            state = stack.up(own, on_step=step.news)
            step.note(f"ClearML {state.api_url}, endpoints {state.serving_url}")
        with _environment(client_environment(SandboxPaths(own), state)):
            yield state
        finished = True
    except Exception as error:
        kept = _keep_logs(own, output)
        if isinstance(error, Tao2ServeError) and error.log is not None and own in error.log.parents:
            error.log = kept / error.log.name
        raise
    finally:
        if not was_up and not (keep and finished):
            _take_down(own, steps, purge=not keep)


def _take_down(home: Path, steps: Steps, *, purge: bool) -> None:
    with deferred_interrupts(), steps.step("take the sandbox down"):
        stack.down(home, purge=purge)
        if purge:
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Point this process at the sandbox alone; the ClearML SDK reads its variables when it is imported."""
    removed = [name for name in os.environ if name.startswith(("CLEARML_", "TRAINS_", "TAO2SERVE_"))]
    before = {name: os.environ.pop(name) for name in removed}
    before |= {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


def _keep_logs(home: Path, output: Path) -> Path:
    """Copy the logs out of a sandbox that is about to vanish, and return the folder where they lie then."""
    logs, kept = SandboxPaths(home).logs, output / "logs"
    if logs.is_dir():
        shutil.copytree(logs, kept, dirs_exist_ok=True)
    return kept


def _in_words(model: TrainedModel) -> str:
    score = model.mean_average_precision
    return f"{model.name}, epoch {model.epoch}, mAP {score:.3f}" if score is not None else f"{model.name}, no mAP"


def _load_plan(deployment: Deployment, state: SandboxState) -> LoadPlan:
    return LoadPlan(
        targets=(Target(url=deployment.endpoint.alias_url),),
        images=pictures()[0].parent,
        shape=ClosedLoop(users=LOAD_USERS),
        run_time_s=LOAD_RUN_S,
        warmup_s=LOAD_WARMUP_S,
        endpoint=f"{deployment.endpoint.name}/{deployment.endpoint.version}",
        model=f"{deployment.source.weights.name}, ONNX {deployment.precision}",
        triton=state.triton_grpc,
        triton_model=deployment.endpoint.triton_model,
        triton_metrics=f"http://127.0.0.1:{state.ports.triton_metrics}/metrics",
    )
