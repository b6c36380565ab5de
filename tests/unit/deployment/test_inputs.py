"""The digests that tell whether anything of a deployment has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto

from tao2serve.config import Settings
from tao2serve.deployment.inputs import ELSEWHERE, LIMITS, Inputs, choose
from tao2serve.deployment.request import DeployRequest, LoadGate, check_request
from tao2serve.errors import UsageError
from tao2serve.loadtest import parse_gate
from tao2serve.registry.source import Source, resolve
from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.values import TrainedModel

pytestmark = pytest.mark.skipif(not pictures(), reason="the sample is not there")
WEIGHTS = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"), Path("missing"))
SPEC = SAMPLE / "pruned" / "experiment_spec.txt"


def request(**changes: object) -> DeployRequest:
    return replace(DeployRequest(source=Source(text=str(WEIGHTS)), endpoint="street"), **changes)


def inputs(asked: DeployRequest, folder: Path, **settings: object) -> Inputs:
    return choose(asked, Settings(**settings), folder=folder).inputs


def test_the_same_files_under_other_names_are_the_same(tmp_path: Path) -> None:
    """Digests are of contents: neither the path nor the times of weights and spec count, nor where servers are."""
    weights, spec = tmp_path / "copy.hdf5", tmp_path / "spec.txt"
    weights.write_bytes(WEIGHTS.read_bytes())
    spec.write_bytes(SPEC.read_bytes())
    copied = request(source=Source(text=str(weights), spec=spec))
    assert inputs(copied, tmp_path) == inputs(request(), tmp_path)
    assert inputs(request(), tmp_path, triton_grpc="elsewhere:1", ready_timeout_s=5) == inputs(request(), tmp_path)


def test_weights_beside_an_onnx_file_count(tmp_path: Path) -> None:
    """The same model.onnx with other external data is another version, wherever the files lie."""
    made = []
    for folder, content in (("one", b"\0"), ("two", b"\0"), ("three", b"\1")):
        model = ModelProto()
        tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
        path = tmp_path / folder / "model.onnx"
        path.parent.mkdir()
        path.write_bytes(model.SerializeToString())
        (path.parent / "weights.bin").write_bytes(content * 8)
        made.append(inputs(request(source=Source(text=str(path), spec=SPEC)), tmp_path).made_of)
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    "settings", [{"placement": "ensemble"}, {"resize": "fast"}, {"deadline_s": 3}, {"instances": 2}, {"warmup": False}]
)
def test_a_setting_of_the_version_makes_another_one(settings: dict[str, object], tmp_path: Path) -> None:
    """Whatever is written into a version when it is deployed is one of its inputs."""
    assert inputs(request(), tmp_path, **settings).made_of != inputs(request(), tmp_path).made_of


def test_what_only_judges_makes_no_other_version(tmp_path: Path) -> None:
    """Picture, limits and gate change the verdict's digest alone."""
    plain = inputs(request(), tmp_path)
    gate = LoadGate(gates=(parse_gate("p99=50ms"),), images=pictures()[0].parent, run_time_s=2)
    for other in (
        inputs(request(image=pictures()[0].read_bytes()), tmp_path),
        inputs(request(gate=gate), tmp_path),
        inputs(request(), tmp_path, matched_ratio=0.5),
    ):
        assert other.made_of == plain.made_of
        assert other.judged_by != plain.judged_by


def test_every_setting_that_does_not_count_exists() -> None:
    """A setting that is renamed must not begin to count, or stop to, unseen."""
    known = set(Settings.model_fields)
    assert known >= LIMITS
    assert known | {"serving_poll_s"} >= ELSEWHERE


def test_a_spec_of_other_classes_than_the_run_s_own_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the choice, by their names; a run whose own spec is the same, is none or cannot be read says nothing.

    What ClearML answers is given here; tests/contract reads it from a server.
    """
    run = TrainedModel(
        model_id="m", name="street", task_id="t", task_name="train", project="p", tags=(), uri="", fetchable=True
    )
    monkeypatch.setattr(
        "tao2serve.deployment.inputs.resolve",
        lambda source, **_: replace(resolve(source, directory=tmp_path), trained=run),
    )
    own = SPEC.read_text(encoding="utf-8")
    for text, said in (
        (own, ""),
        (None, ""),
        ("no spec", ""),
        (
            own.replace('"person"', '"biped"'),
            "; --spec has classes car, person, road_sign, the run's own car, biped, road_sign",
        ),
    ):
        theirs = tmp_path / "theirs.txt" if text is not None else None
        if theirs is not None:
            theirs.write_text(text or "", encoding="utf-8")
        monkeypatch.setattr("tao2serve.deployment.inputs.fetch_spec", lambda *_, theirs=theirs, **__: theirs)
        asked = request(source=Source(text=str(WEIGHTS), spec=SPEC))
        assert choose(asked, Settings(), folder=tmp_path).source.reason == f"given as a file{said}"


def test_what_cannot_be_asked_for_is_said_before_anything_is_looked_up() -> None:
    """A percentage that is none, and pictures that are not there, are wrong usage."""
    gate = LoadGate(gates=(), images=Path("/nowhere"), run_time_s=1)
    for wrong in (request(canary=0.0), request(canary=101.0), request(gate=gate), request(endpoint="street_4")):
        with pytest.raises(UsageError):
            check_request(wrong)
