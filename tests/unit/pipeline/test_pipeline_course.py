"""The command of each step, as it is made from what the steps before it have left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tao2serve.errors import ParityError, ServiceError, UsageError
from tao2serve.pipeline.course import command_of
from tao2serve.pipeline.request import PipelineRequest, check_request, pipeline_project
from tao2serve.pipeline.results import OutputFile, StepResult
from tao2serve.registry.source import Source
from tao2serve.remote.carried import INPUT, VALUE
from tao2serve.remote.request import Given

SHA = "c" * 64


def _result(step: str, document: dict[str, Any], output: OutputFile | None = None) -> StepResult:
    return StepResult(step=step, task_id=f"task-{step}", worker="", exit_code=0, document=document, output=output)


def _folder(name: str) -> OutputFile:
    return OutputFile(uri=f"http://files/{name}.zip", sha256=name[0] * 64, bytes=7)


def _done(**changed: dict[str, Any]) -> dict[str, StepResult]:
    documents: dict[str, dict[str, Any]] = {
        "export": {"artifacts": [{"path": "tao2serve-out/00/model.onnx", "sha256": SHA}]},
        "build": {
            "models": [{"name": "street", "version": "1", "path": "tao2serve-out/00/street"}],
            "placement": "endpoint", "artifact": {"sha256": SHA},
        },
        "verify": {"passed": True},
        "publish": {"artifact": {"sha256": SHA, "model_id": "published"}},
        "deploy": {"endpoint": {"name": "street", "version": "4"}, "artifact": {"model_id": "published"}},
    } | changed  # fmt: skip
    folders = {"export": _folder("export"), "build": _folder("build")}
    return {step: _result(step, document, folders.get(step)) for step, document in documents.items()}


@pytest.fixture
def request_(tmp_path: Path) -> PipelineRequest:
    """A request with an option that says what is made, one that judges, and a spec of the user's."""
    spec, picture = tmp_path / "spec.txt", tmp_path / "picture.jpg"
    spec.write_text("random_seed: 42")
    picture.write_bytes(b"JPEG")
    return PipelineRequest(
        endpoint="street",
        source=Source(text="m"),
        making=(
            Given(option="--spec", values=(str(spec),), carried=INPUT),
            Given(option="--precision", values=("fp16",), carried=VALUE),
        ),
        judging=(Given(option="--image", values=(str(picture),), carried=INPUT),),
        slo=("p99=1s", "failure-ratio=0%"),
        gate_images=tmp_path,
    )


def test_what_is_made_is_asked_for_alike_wherever_it_is_made(request_: PipelineRequest) -> None:
    """export, publish and deploy get the same options and the model by its id; what judges goes to deploy alone."""
    for step in ("export", "publish", "deploy"):
        command = command_of(step, request_, "m", _done())
        assert "--precision fp16" in " ".join(command.arguments)
        assert command.arguments[-1] == "m"
        assert [one.path.name for one in command.inputs][:1] == ["spec.txt"]
        assert ("--image" in command.arguments) == (step == "deploy")


def test_folders_are_handed_on_by_their_uri(request_: PipelineRequest) -> None:
    """verify reads both folders where the steps before it left them; nothing of them is uploaded again."""
    command = command_of("verify", request_, "m", _done())
    assert [one.uri for one in command.handed] == ["http://files/export.zip", "http://files/build.zip"]
    reference, candidate = command.arguments[-2:]
    exported, built = command.handed
    assert (reference, candidate) == (f"{exported.place}/model.onnx", f"{built.place}/street/1/model.onnx")


def test_of_an_ensemble_its_network_is_verified(request_: PipelineRequest) -> None:
    """The model that is asked there has no network of its own."""
    models = [{"name": name, "version": "1", "path": name} for name in ("street_network", "street")]
    done = _done(build={"models": models, "placement": "ensemble", "artifact": {"sha256": SHA}})
    assert "/street/1/" not in command_of("verify", request_, "m", done).arguments[-1]


def test_the_version_that_was_deployed_is_tested_and_promoted(request_: PipelineRequest) -> None:
    """By its own URL, with every gate."""
    load = command_of("loadtest", request_, "m", _done())
    assert load.arguments[-1] == "street/4"
    assert [load.arguments[i + 1] for i, word in enumerate(load.arguments) if word == "--slo"] == list(request_.slo)
    assert command_of("promote", request_, "m", _done()).arguments[-2:] == ("street", "4")


def test_what_was_not_verified_is_not_deployed(request_: PipelineRequest) -> None:
    """Another published file than the built one, or another served model than the published one, ends with exit 7."""
    published = {"artifact": {"sha256": "d" * 64, "model_id": "published"}}
    with pytest.raises(ParityError, match="not the one that was built"):
        command_of("deploy", request_, "m", _done(publish=published))
    served = {"endpoint": {"name": "street", "version": "4"}, "artifact": {"model_id": "other"}}
    with pytest.raises(ParityError, match="not what was published"):
        command_of("loadtest", request_, "m", _done(deploy=served))


def test_a_result_that_does_not_say_what_it_must_is_refused(request_: PipelineRequest) -> None:
    """With the option that has the step run again."""
    with pytest.raises(ServiceError, match="left no artifacts") as caught:
        command_of("build", request_, "m", _done(export={}))
    assert "--from-step export" in caught.value.hint


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"slo": ()}, "no gate"),
        ({"gate_images": None}, "needs pictures"),
        ({"from_step": "convert"}, "--from-step"),
        ({"from_step": "promote", "until": "deploy"}, "comes after"),
        ({"canary": 140.0}, "140"),
        ({"endpoint": "no name"}, "no name"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(request_: PipelineRequest, changed: dict[str, Any], said: str) -> None:
    """Before anything is begun, by exit code 2; without a load test no gate is wanted."""
    from dataclasses import replace

    check_request(replace(request_, slo=(), gate_images=None, until="deploy"))
    with pytest.raises(UsageError, match=said):
        check_request(replace(request_, **changed))


def test_endpoints_with_short_names_have_pipelines_too() -> None:
    """ClearML takes no project whose name has less than three letters."""
    assert pipeline_project("tao2serve", "street") == "tao2serve/.pipelines/street"
    assert pipeline_project("tao2serve", "a") == "tao2serve/.pipelines/a pipeline"
