"""What a deployment is made from, and the digests that tell whether anything of it has changed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tao2serve import __version__, runtime
from tao2serve.config import Settings
from tao2serve.deployment.request import DeployRequest
from tao2serve.errors import Tao2ServeError
from tao2serve.export.local import neutral_picture
from tao2serve.images import find_images
from tao2serve.registry.fetch import fetch_spec
from tao2serve.registry.naming import named_as_known
from tao2serve.registry.source import ResolvedSource, resolve
from tao2serve.runtime import DetectorParams
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import read_experiment
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import ExperimentSpec

__all__ = ["Chosen", "Inputs", "choose", "digest_of", "runtime_sha256", "weights_sha256"]

log = logging.getLogger(__name__)

# Settings that say where things are and how long to wait: they change nothing of what is served. All others count,
# so that one that is added later does too.
ELSEWHERE: Final = frozenset({
    "service", "model_repository", "triton_grpc", "serving_base_url", "artifact_project", "ready_timeout_s",
    "serving_poll_s", "tao_launcher", "tao_key_file", "tao_timeout_s",
})  # fmt: skip
LIMITS: Final = frozenset({"tensor_tolerance", "matched_ratio", "matched_ratio_int8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Two digests: equal `made_of` gives the same version, equal `judged_by` the same verdict on it."""

    made_of: str  # weights, spec, clustering, calibration, options, settings, tao2serve and the runtime it ships
    judged_by: str  # picture, limits, whether parity is accepted, the load gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The trained model that is deployed, read, with the picture it is looked at with."""

    source: ResolvedSource
    spec: ExperimentSpec
    spec_text: str
    params: DetectorParams
    image: bytes
    inputs: Inputs


def choose(
    request: DeployRequest,
    settings: Settings,
    *,
    folder: Path,
    on_news: Callable[[str], None] = lambda _: None,
) -> Chosen:
    """Find, fetch and read what is to be deployed.

    Raises as `resolve` and `read_experiment` do.
    """
    source = resolve(request.source, directory=folder, on_news=on_news)
    with named_as_known(source, made=folder / "made"):
        spec = read_experiment(source.experiment_spec, clustering=request.clustering)
        params = DetectorParams.from_dict(to_params(spec))
    if request.source.spec is not None and source.trained is not None:
        other = fetch_spec(source.trained, directory=folder / "theirs")
        differs = _other_classes(spec, other) if other is not None else ""
        source = replace(source, reason=source.reason + differs)
    image = request.image or neutral_picture(params)
    return Chosen(
        source=source,
        spec=spec,
        spec_text=source.experiment_spec.read_text(encoding="utf-8", errors="replace"),
        params=params,
        image=image,
        inputs=Inputs(
            made_of=digest_of(_made_of(request, settings, source)),
            judged_by=digest_of(_judged_by(request, settings, image)),
        ),
    )


def _other_classes(spec: ExperimentSpec, theirs: Path) -> str:
    """Say so if a spec that was given names other classes than the one that ClearML holds for the model."""
    try:
        trained = read_experiment(theirs)
    except Tao2ServeError as error:  # perhaps why another one was given
        log.info("the spec of the training run cannot be read: %s", error)
        return ""
    if spec.classes == trained.classes:
        return ""
    return f"; --spec has classes {', '.join(spec.classes)}, the run's own {', '.join(trained.classes)}"


def digest_of(document: Any) -> str:
    """Return the SHA-256 of a JSON document, whatever the order of its members."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def runtime_sha256() -> str:
    """Return the digest of the code that ships to servers."""
    return _tree_sha256(sorted(Path(runtime.__file__).parent.glob("*.py")))


def _made_of(request: DeployRequest, settings: Settings, source: ResolvedSource) -> dict[str, Any]:
    wish = request.artifacts
    return {
        "tao2serve": __version__,
        "runtime": runtime_sha256(),
        "weights": weights_sha256(source),
        "spec": source.spec_sha256,
        "clustering": _file_sha256(request.clustering),
        "precision": wish.precision,
        "calibration_images": _pictures_sha256(wish.calibration_images),
        "calibration_cache": _file_sha256(wish.calibration_cache),
        "calibration_method": wish.calibration_method,
        "fold_batch_norm": wish.fold_batch_norm,
        "uint8_input": wish.uint8_input,
        "absolute_boxes": wish.absolute_boxes,
        "settings": {
            name: value for name, value in settings.model_dump(mode="json").items() if name not in ELSEWHERE | LIMITS
        },
    }  # fmt: skip


def _judged_by(request: DeployRequest, settings: Settings, image: bytes) -> dict[str, Any]:
    wish, gate = request.artifacts, request.gate
    return {
        "image": hashlib.sha256(image).hexdigest(),
        "images": _pictures_sha256(wish.images),
        "labels": _tree_sha256(sorted(wish.labels.rglob("*"))) if wish.labels else None,
        "accept_parity": wish.accept_parity,
        "limits": {name: getattr(settings, name) for name in sorted(LIMITS)},
        "gate": {**asdict(gate), "images": _pictures_sha256(gate.images)} if gate else None,
    }


def _pictures_sha256(place: Path | None) -> str | None:
    """Names and bytes of a folder's pictures, or of the one picture."""
    return _tree_sha256(find_images(place)) if place is not None else None


def _tree_sha256(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        if path.is_file():
            total.update(f"{path.name}\0{sha256_of(path)}\0".encode())
    return total.hexdigest()


def weights_sha256(source: ResolvedSource) -> str:
    """The file's digest, and with it that of the files in which an ONNX model keeps its weights.

    Raises InputError, as accepting the model would, if they are none that may be read.
    """
    if source.weights.suffix.lower() != ".onnx":
        return source.sha256
    from tao2serve.export.stored import content_sha256

    return content_sha256(source.weights)


def _file_sha256(path: Path | None) -> str | None:
    return sha256_of(path) if path is not None else None
