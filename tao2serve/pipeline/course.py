"""The command that each step is, made from what the steps before it have left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from tao2serve.deployment.request import GATE_WARMUP_S
from tao2serve.errors import ParityError, ServiceError
from tao2serve.pipeline.request import PipelineRequest
from tao2serve.pipeline.results import StepResult
from tao2serve.remote.carried import INPUT, OUTPUT, VALUE, Carried
from tao2serve.remote.request import IN, Given, HandedOn, RemoteCommand, described
from tao2serve.serving.names import check_endpoint_name
from tao2serve.triton.models import detector_name

__all__ = ["command_of", "endpoint_version"]

Done = Mapping[str, StepResult]
HIDDEN: Final = "step"  # the command of what only a pipeline does by itself
EXPORTED: Final = f"{IN}/exported"
MOST_PICTURES: Final = 50  # that verify looks at
BUILT: Final = f"{IN}/built"


def command_of(step: str, request: PipelineRequest, model_id: str, done: Done) -> RemoteCommand:
    """Return a step's command; `done` holds the results of the steps before it.

    Raises ServiceError for a result that does not say what it must, ParityError if what was published is not what
    was verified, or what serves is not what was published.
    """
    return COMMANDS[step](request, model_id, done)


def endpoint_version(deployed: StepResult) -> tuple[str, str]:
    """Return the name and number of the version that was deployed."""
    endpoint = _member(deployed, "endpoint")
    name, version = str(endpoint.get("name") or ""), str(endpoint.get("version") or "")
    check_endpoint_name(name)
    return name, version


def _choose(request: PipelineRequest, model_id: str, _done: Done) -> RemoteCommand:
    return described(HIDDEN, [_argument("choose", model_id), *_making(request, "--spec", "--clustering"), _json()])


def _export(request: PipelineRequest, model_id: str, _done: Done) -> RemoteCommand:
    output = _option("--output", "exported", carried=OUTPUT)
    return described("export", [_argument(model_id), *_making(request), output, _json()])


def _build(request: PipelineRequest, _model_id: str, done: Done) -> RemoteCommand:
    exported, handed = _exported(done["export"])
    command = described(
        "build",
        [
            _argument(exported), _option("--name", request.endpoint), *_making(request, "--accept-parity"),
            _option("--repository", "repository", carried=OUTPUT), _json(),
        ],
    )  # fmt: skip
    return replace(command, handed=(handed,))


def _verify(request: PipelineRequest, _model_id: str, done: Done) -> RemoteCommand:
    exported, from_export = _exported(done["export"])
    built, from_build = _built(done["build"])
    images = request.verify_images or request.gate_images  # pictures with objects say more than synthetic ones
    looked_at = (
        [_option("--images", str(images), carried=INPUT), _option("--limit", str(MOST_PICTURES))] if images else []
    )
    command = described("verify", [_argument(exported, built), *looked_at, _json()])
    return replace(command, handed=(from_export, from_build))


def _publish(request: PipelineRequest, model_id: str, _done: Done) -> RemoteCommand:
    return described(
        HIDDEN, [_argument("publish", model_id), _option("--endpoint", request.endpoint), *_making(request), _json()]
    )


def _deploy(request: PipelineRequest, model_id: str, done: Done) -> RemoteCommand:
    built, published = _sha256(done["build"]), _sha256(done["publish"])
    if built != published:
        raise ParityError(
            "the published artifact", "is not the one that was built and verified",
            evidence=f"SHA-256 {published}, and {built}", hint="run it again from there: --from-step build",
        )  # fmt: skip
    return described(
        "deploy",
        [
            _argument(model_id), _option("--endpoint", request.endpoint), _option("--canary", f"{request.canary:g}"),
            *_making(request), *request.judging, _json(),
        ],
    )  # fmt: skip


def _loadtest(request: PipelineRequest, _model_id: str, done: Done) -> RemoteCommand:
    published, served = _member(done["publish"], "artifact"), _member(done["deploy"], "artifact")
    if published.get("model_id") != served.get("model_id"):
        raise ParityError(
            "what was deployed", "is not what was published",
            evidence=f"ClearML models {served.get('model_id')} and {published.get('model_id')}",
            hint="run it again from there: --from-step publish",
        )  # fmt: skip
    name, version = endpoint_version(done["deploy"])
    return described(
        "loadtest",
        [
            _argument(f"{name}/{version}"),
            _option("--images", str(request.gate_images), carried=INPUT),
            Given(option="--slo", values=tuple(request.slo), carried=VALUE),
            _option("--run-time", request.gate_time), _option("--warmup", f"{GATE_WARMUP_S:g}s"),
            _option("--users", str(request.users)),
            _option("--output", "load", carried=OUTPUT), _json(),
        ],
    )  # fmt: skip


def _promote(_request: PipelineRequest, _model_id: str, done: Done) -> RemoteCommand:
    return described("promote", [_argument(*endpoint_version(done["deploy"])), _json()])


COMMANDS: Final[Mapping[str, Callable[[PipelineRequest, str, Done], RemoteCommand]]] = {
    "choose": _choose, "export": _export, "build": _build, "verify": _verify, "publish": _publish,
    "deploy": _deploy, "loadtest": _loadtest, "promote": _promote,
}  # fmt: skip


def _making(request: PipelineRequest, *only: str) -> list[Given]:
    return [one for one in request.making if not only or one.option in only]


def _exported(result: StepResult) -> tuple[str, HandedOn]:
    """Return where the ONNX file of the export lies in the folder that is handed on, its spec beside it."""
    artifacts = result.document.get("artifacts")
    first = artifacts[0] if isinstance(artifacts, list) and artifacts else {}
    path = PurePosixPath(str(first.get("path") or ""))
    if not path.name:
        raise _unreadable(result, "artifacts")
    return f"{EXPORTED}/{path.name}", _handed(result, EXPORTED)


def _built(result: StepResult) -> tuple[str, HandedOn]:
    """Return where the network lies in the repository that was built; the last model is the one that is asked."""
    models = result.document.get("models")
    asked = models[-1] if isinstance(models, list) and models else {}
    if not asked.get("name"):
        raise _unreadable(result, "models")
    name = detector_name(asked["name"]) if result.document.get("placement") == "ensemble" else asked["name"]
    return f"{BUILT}/{name}/{asked['version']}/model.onnx", _handed(result, BUILT)


def _handed(result: StepResult, place: str) -> HandedOn:
    output = result.output
    if output is None:
        raise _unreadable(result, "output")
    return HandedOn(place=place, uri=output.uri, sha256=output.sha256, bytes=output.bytes)


def _sha256(result: StepResult) -> str:
    return str(_member(result, "artifact").get("sha256") or "")


def _member(result: StepResult, name: str) -> Mapping[str, Any]:
    found = result.document.get(name)
    if not isinstance(found, Mapping):
        raise _unreadable(result, name)
    return found


def _unreadable(result: StepResult, name: str) -> ServiceError:
    return ServiceError(
        f"step {result.step}, ClearML task {result.task_id}", f"left no {name}",
        hint=f"run it again from there: --from-step {result.step}",
    )  # fmt: skip


def _argument(*values: str) -> Given:
    return Given(option="", values=values, carried=VALUE)


def _option(name: str, value: str, *, carried: Carried = VALUE) -> Given:
    return Given(option=name, values=(value,), carried=carried)


def _json() -> Given:
    return Given(option="--json", values=(), carried=VALUE)
