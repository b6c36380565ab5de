"""`deploy`: the order of things, from a trained model to an endpoint that answers."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tao2serve.artifact_request import ArtifactRequest, to_serve
from tao2serve.artifacts import make_artifacts
from tao2serve.config import Settings
from tao2serve.export.execution import open_model
from tao2serve.export.local import detect, neutral_picture
from tao2serve.parity.boxes import BoxParity
from tao2serve.registry.operation import Operation
from tao2serve.registry.publish import publish
from tao2serve.registry.source import ResolvedSource, Source, resolve
from tao2serve.runtime import DetectorParams
from tao2serve.serving.client import Answer, wait_for_answer
from tao2serve.serving.managed import auxiliary_for, check_manageable, wait_until_loaded
from tao2serve.serving.names import check_endpoint_name
from tao2serve.serving.package import check_servable, write_package
from tao2serve.serving.parity import check_boxes
from tao2serve.serving.placement import place
from tao2serve.serving.rollout import change_route
from tao2serve.serving.service import EndpointVersion, find_service
from tao2serve.serving.undo import take_back
from tao2serve.steps import Steps, undone_on_failure
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import read_experiment
from tao2serve.triton.control import TritonControl
from tao2serve.triton.models import models_of
from tao2serve.triton.repository import write_models
from tao2serve.values import ModelArtifact
from tao2serve.verify.verification import Verification

__all__ = ["DeployRequest", "Deployment", "deploy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """What to deploy, and under which name; `image` is what the smoke request and the parity look at."""

    source: Source
    endpoint: str
    image: bytes | None = None
    clustering: Path | None = None
    artifacts: ArtifactRequest = field(default_factory=to_serve)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A live endpoint version and how it came to be."""

    endpoint: EndpointVersion
    source: ResolvedSource
    artifact: ModelArtifact
    cost: Verification | None  # of the precision, None for fp32
    warnings: tuple[str, ...]  # what its user must know of source and spec
    model_id: str
    task_id: str
    service_id: str
    placement: str
    parity: BoxParity
    smoke: Answer
    steps: Steps

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve deploy`."""
        trained = self.source.trained
        return {
            "outcome": "ok",
            "endpoint": {
                "name": self.endpoint.name,
                "version": str(self.endpoint.version),
                "url": self.endpoint.url,
                "alias_url": self.endpoint.alias_url,
            },
            "source": {
                "weights": self.source.weights.name,
                "model_id": trained.model_id if trained else None,
                "task_id": trained.task_id if trained else None,
                "reason": self.source.reason,
            },
            "artifact": {
                "format": self.artifact.format,
                "precision": self.artifact.precision,
                "sha256": self.artifact.sha256,
                "model_id": self.model_id,
                "cost": self.cost.to_dict() if self.cost else None,
                "warnings": list(self.warnings),
            },
            "parity": {
                "boxes_expected": self.parity.expected,
                "boxes_found": self.parity.found,
                "matched_ratio": self.parity.matched_ratio,
            },
            "placement": self.placement,
            "deployment_task_id": self.task_id,
            "service_id": self.service_id,
            "steps": self.steps.to_list(),
        }


def deploy(request: DeployRequest, settings: Settings, *, steps: Steps) -> Deployment:
    """Leave a live, verified endpoint version, and its alias pointing at it.

    What was serving stays untouched until the alias is switched, the last step; when a step before that fails,
    what this run added to Triton and to the serving service is taken away again.
    """
    check_endpoint_name(request.endpoint)
    check_manageable(settings)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tao2serve-deploy-")))
        with steps.step("choose the trained model") as step:
            source = resolve(request.source, directory=folder, on_news=step.news)
            step.note(f"{source.weights.name}: {source.reason}")
            spec = read_experiment(source.experiment_spec, clustering=request.clustering)
            params = DetectorParams.from_dict(to_params(spec))
        made = make_artifacts(source.weights, spec, request.artifacts, settings, folder=folder / "made", steps=steps)
        artifact = made.model
        with steps.step("look at the picture here") as step:
            check_servable(artifact, settings)
            image = request.image or neutral_picture(params)
            limits = (settings.max_image_bytes, settings.max_image_pixels)
            there = open_model(artifact.path)
            expected = detect(there, image, params, subject="the picture", limits=limits, mode=settings.resize)
            step.note(f"{len(expected)} boxes")
        with steps.step("find the serving service") as step:
            service = find_service(settings.service)
            where = place(service, request.endpoint, settings)
            endpoint = where.endpoint
            models = models_of(artifact, params, settings, name=endpoint.triton_model)
            control = stack.enter_context(TritonControl(where.triton))
            (control.require_live if settings.managed else control.require_ready)()
            step.note(f"{service.id}, next version {endpoint.version}")
        operation = Operation(
            "deploy", endpoint=endpoint.name, service_id=service.id, project=settings.artifact_project
        )
        stack.enter_context(operation)
        service.turn = operation.turn
        with steps.step("publish to ClearML") as step:
            model = publish(
                operation, artifact, name=endpoint.triton_model, params=params.to_dict(), trained=source.trained,
                original=made.original,
            )  # fmt: skip
            step.note(f"model {model.model_id}")
            operation.note(version=str(endpoint.version), model=model.model_id)
        undo = stack.enter_context(undone_on_failure())
        if where.repository is None:
            undo.callback(take_back, service, control, endpoint, ())
        else:
            with steps.step("load on Triton") as step:
                written = write_models(models, repository=where.repository)
                undo.callback(take_back, service, control, endpoint, written)
                control.load(endpoint.triton_model, timeout_s=settings.ready_timeout_s)
                step.note(f"{', '.join(model.name for model in written)} on {where.triton}")
        with steps.step("register the endpoint version") as step:
            code = write_package(endpoint, model, artifact, params, settings, directory=folder / "preprocess")
            service.register(
                endpoint, model_id=model.model_id, signature=artifact.signature, preprocess_code=code,
                auxiliary=auxiliary_for(models, model, settings),
            )  # fmt: skip
            step.note(endpoint.url)
        if where.repository is None:
            with steps.step("wait for the controller to load it on Triton") as step:
                step.note(wait_until_loaded(service.id, control, endpoint, model, settings, on_news=step.news))
        with steps.step("ask it, and compare with the artifact") as step:
            limit_s = settings.ready_timeout_s
            smoke = wait_for_answer(endpoint.url, image, timeout_s=limit_s, on_news=step.news)
            parity = check_boxes(expected, smoke, subject=endpoint.url)
            step.note(str(parity))
        with steps.step("switch the alias") as step:
            change_route(
                service, endpoint.name, {endpoint.version: 1.0}, operation=operation, image=image,
                settings=settings, on_news=step.news,
            )  # fmt: skip
            undo.pop_all()  # it is live
            step.note(endpoint.alias_url)
        deployment = Deployment(
            endpoint=endpoint, source=source, artifact=artifact, cost=made.cost, warnings=made.warnings,
            model_id=model.model_id, task_id=operation.id, service_id=service.id, placement=settings.placement,
            parity=parity, smoke=smoke, steps=steps,
        )  # fmt: skip
        operation.record("deployment", deployment.to_dict())
        return deployment
