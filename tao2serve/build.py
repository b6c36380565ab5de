"""`build`: from a trained model to Triton models in a repository; no server is changed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tao2serve.artifact_request import ArtifactRequest, to_serve
from tao2serve.artifacts import make_artifacts
from tao2serve.config import Settings
from tao2serve.registry.naming import named_as_known
from tao2serve.registry.source import ResolvedSource, Source, resolve
from tao2serve.runtime import DetectorParams
from tao2serve.serving.names import check_endpoint_name
from tao2serve.serving.package import check_servable
from tao2serve.steps import Steps
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import read_experiment
from tao2serve.triton.models import models_of
from tao2serve.triton.repository import check_location, write_models
from tao2serve.values import ModelArtifact, TritonModel
from tao2serve.verify.verification import Verification

__all__ = ["Build", "BuildRequest", "build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to write, under which name, and where."""

    source: Source
    name: str
    repository: Path
    clustering: Path | None = None
    artifacts: ArtifactRequest = field(default_factory=to_serve)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Models in a repository and how they came to be; the last one is the one to load and to ask."""

    models: tuple[TritonModel, ...]
    source: ResolvedSource
    artifact: ModelArtifact
    cost: Verification | None  # of the precision, None for fp32
    warnings: tuple[str, ...]
    placement: str
    steps: Steps

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve build`."""
        return {
            "outcome": "ok",
            "models": [
                {
                    "name": model.name,
                    "version": str(model.version),
                    "path": str(model.path),
                    "backend": model.backend,
                    "created": model.created,
                }
                for model in self.models
            ],
            "artifact": {
                "format": self.artifact.format,
                "precision": self.artifact.precision,
                "sha256": self.artifact.sha256,
                "cost": self.cost.to_dict() if self.cost else None,
                "warnings": list(self.warnings),
            },
            "placement": self.placement,
            "steps": self.steps.to_list(),
        }


def build(request: BuildRequest, settings: Settings, *, steps: Steps) -> Build:
    """Leave the models of a deployment in the repository, whole and never rewritten; no server knows of them yet.

    The same models again are accepted as they are. Raises as `make_artifacts` and `write_models` do.
    """
    check_endpoint_name(request.name)
    repository = request.repository.absolute()
    check_location(repository, remedy="choose another: --repository DIR")
    with tempfile.TemporaryDirectory(prefix="tao2serve-build-") as scratch:
        folder = Path(scratch)
        with steps.step("choose the trained model") as step:
            source = resolve(request.source, directory=folder, on_news=step.news)
            step.note(f"{source.weights.name}: {source.reason}")
            # Only who clusters boxes needs the spec; the network alone is tensors in, tensors out.
            needs_spec = source.spec is not None or settings.placement == "ensemble" or request.clustering is not None
            with named_as_known(source, made=folder / "made"):
                spec = read_experiment(source.experiment_spec, clustering=request.clustering) if needs_spec else None
                params = DetectorParams.from_dict(to_params(spec)) if spec else None
        with named_as_known(source, made=folder / "made"):
            made = make_artifacts(
                source.weights, spec, request.artifacts, settings, folder=folder / "made", steps=steps
            )
        with steps.step("write the Triton models") as step:
            check_servable(made.model, settings)
            models = models_of(made.model, params, settings, name=request.name)
            written = write_models(models, repository=repository)
            step.note(", ".join(model.name for model in written))
    return Build(
        models=written, source=source, artifact=made.model, cost=made.cost, warnings=made.warnings,
        placement=settings.placement, steps=steps,
    )  # fmt: skip
