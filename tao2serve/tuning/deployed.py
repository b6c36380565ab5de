"""The version that is tuned: its network, what boxes are clustered by, and the settings that it was deployed with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tao2serve.config import Settings
from tao2serve.deployment.inputs import ELSEWHERE
from tao2serve.deployment.site import Site
from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.registry.calls import get_by_ids, text
from tao2serve.registry.operations import read_records
from tao2serve.registry.publish import PublishedModel, held_model
from tao2serve.registry.session import translated
from tao2serve.runtime import DetectorParams
from tao2serve.serving.inventory import Inventory
from tao2serve.serving.names import endpoint_and_version
from tao2serve.serving.service import EndpointVersion
from tao2serve.tao.source import sha256_of
from tao2serve.triton.config import CONFIG_FILE, PRECISION_PARAMETER, parse_config
from tao2serve.triton.models import MODEL_CODE, MODEL_FILE, PLAN_FILE, VERSION, detector_name
from tao2serve.tuning.candidate import Candidate
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

__all__ = ["Deployed", "read_deployed", "version_to_tune"]

_TYPE: Final = "TYPE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A version that serves; nothing of it is ever changed here."""

    endpoint: EndpointVersion
    model: PublishedModel
    artifact: ModelArtifact
    params: DetectorParams
    settings: Settings  # that it was deployed with; addresses and times are those of now

    @property
    def present(self) -> Candidate:
        return Candidate.of(self.settings)


def version_to_tune(endpoint: str, site: Site) -> EndpointVersion:
    """Return the version that NAME/VERSION names, or the one that the alias NAME routes to.

    Raises UsageError if the alias routes to several, InputError if there is no such version.
    """
    name, version = endpoint_and_version(endpoint)
    state = site.state()
    known = state.versions(name)
    if version is None:
        routed = sorted(state.weights(name))
        if len(routed) > 1:
            raise UsageError(
                f"endpoint {name}", "shares its requests among several versions",
                evidence=", ".join(f"{name}/{number}" for number in routed), hint=f"name one: {name}/{routed[-1]}",
            )  # fmt: skip
        version = routed[0] if routed else None
    if version is None or version not in known:
        listed = ", ".join(f"{name}/{number}" for number in known) or "none"
        raise InputError(f"endpoint {endpoint}", "is not registered, or routes to nothing", evidence=listed)
    return site.version(version)


def read_deployed(endpoint: EndpointVersion, site: Site, settings: Settings) -> Deployed:
    """Read what a version is made of: from its operation in ClearML, and from Triton's repository.

    Raises InputError for a version that no deployment of tao2serve is known to have made, or whose files are gone.
    """
    subject = f"endpoint {endpoint.name}/{endpoint.version}"
    record = Inventory(state=site.state(), operations=site.records()).maker(endpoint.name, endpoint.version)
    if record is None:
        raise InputError(subject, "was not deployed by tao2serve, so it is not known what it is made of")
    kept = read_records(record.task_id, "params.json", "settings")
    model = held_model(record.properties["model"])
    try:
        here = {name: getattr(settings, name) for name in ELSEWHERE}
        as_deployed = Settings(**{**kept["settings"], **here})
        params = DetectorParams.from_dict(kept["params.json"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise InputError(
            subject, "was deployed by another tao2serve: its record cannot be read",
            evidence=f"ClearML task {record.task_id}: {error!r}"[:300], hint="deploy it again",
        ) from error  # fmt: skip
    if model is None:
        raise InputError(subject, "has lost its published model", evidence=f"ClearML task {record.task_id}")
    artifact = read_artifact(endpoint, site, source_sha256=_source_sha256(model.model_id))
    return Deployed(endpoint=endpoint, model=model, artifact=artifact, params=params, settings=as_deployed)


def read_artifact(endpoint: EndpointVersion, site: Site, *, source_sha256: str) -> ModelArtifact:
    """Return the network of a version as it lies in the repository."""
    repository = site.host.repository
    if repository is None:
        raise ServiceError("Triton's model repository", "is not known")
    names = (endpoint.triton_model, detector_name(endpoint.triton_model))
    for folder, file, kind in (
        (repository / name, file, kind)
        for name in names
        for file, kind in ((MODEL_FILE, "onnx"), (PLAN_FILE, "tensorrt_plan"))
    ):
        path = folder / str(VERSION) / file
        if path.is_file():
            return _artifact(folder, path, kind, source_sha256)
    raise InputError(
        f"endpoint {endpoint.name}/{endpoint.version}", "has no network in the repository",
        evidence=", ".join(str(repository / name) for name in names),
        hint="is TAO2SERVE_MODEL_REPOSITORY the folder that this Triton was started with?",
    )  # fmt: skip


def _artifact(folder: Path, path: Path, kind: str, source_sha256: str) -> ModelArtifact:
    config = parse_config((folder / CONFIG_FILE).read_text(encoding="utf-8"), source=folder / CONFIG_FILE)
    ours = (path.name, MODEL_CODE)
    # Of a plan the limits are not in its file; that it takes what it was deployed with is known.
    return ModelArtifact(
        format=kind,
        path=path,
        sha256=sha256_of(path),
        precision=str(config.parameters[PRECISION_PARAMETER].string_value),
        signature=ModelSignature(
            input=_tensor(config.input[0]), coverage=_tensor(config.output[0]), bbox=_tensor(config.output[1])
        ),
        source_sha256=source_sha256,
        companions=tuple(
            other
            for other in sorted(path.parent.rglob("*"))
            if kind == "onnx" and other.is_file() and other.name not in ours and other.parent.name != "__pycache__"
        ),
        batches=(1, max(int(config.max_batch_size), 1)) if kind == "tensorrt_plan" else None,
    )


def _tensor(said: Any) -> Tensor:
    from tritonclient.grpc import model_config_pb2 as schema

    datatype = str(schema.DataType.Name(said.data_type)).removeprefix(_TYPE)
    return Tensor(name=str(said.name), datatype=datatype, shape=tuple(int(size) for size in said.dims))


def _source_sha256(model_id: str) -> str:
    with translated(f"ClearML model {model_id}", "could not be read"):
        row = get_by_ids("models", [model_id], fields=["metadata"]).get(model_id)
    return text(row, "metadata", "source_sha256", "value") or ""
