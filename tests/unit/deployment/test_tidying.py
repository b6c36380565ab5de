"""What a deployment takes away of killed runs, and of itself when it fails: its own, and all of it, or it says so."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tao2serve.config import Settings
from tao2serve.deployment import candidate, report, reuse, serve, site
from tao2serve.deployment.course import Course
from tao2serve.deployment.host import Host
from tao2serve.deployment.inputs import Inputs
from tao2serve.deployment.site import Site
from tao2serve.errors import ServiceError
from tao2serve.registry.operations import OperationRecord
from tao2serve.serving import ownership
from tao2serve.serving.service import EndpointVersion
from tao2serve.serving.state import ServiceState
from tao2serve.steps import Steps, undone_on_failure
from tao2serve.values import TritonModel

OURS, THEIRS = b"our network", b"their network"
MARK = ownership.mark_of("service")
START = datetime(2026, 1, 1, tzinfo=UTC)
DEAD = OperationRecord(
    task_id="dead", kind="deploy", endpoint="street", status="failed", created=START, last_update=START, holder=None,
    properties={"inputs": "a", "judged": "j", "model": "m", "version": "3", "stage": "numbered"},
)  # fmt: skip


@dataclass
class World:
    """Serving service, Triton and ClearML in one: what is done to them, and what Triton refuses."""

    id: str = "service"
    refused: str = ""
    done: list[str] = field(default_factory=list)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    turn: Any = None

    def routes_to(self, _endpoint: EndpointVersion) -> bool:
        return False

    def unregister(self, endpoint: EndpointVersion) -> None:
        self.done.append(f"unregister {endpoint.version}")

    def unload(self, name: str) -> None:
        if name == self.refused:
            raise ServiceError(f"Triton model {name}", "was refused")
        self.done.append(f"unload {name}")

    def mark(self, task_id: str, **properties: str) -> None:
        self.notes.setdefault(task_id, {}).update(properties)

    def stage(self, task_id: str) -> str:
        return self.notes.get(task_id, {}).get(reuse.STAGE, "")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    for module in (candidate, serve):
        monkeypatch.setattr(module, "mark", made.mark)
    monkeypatch.setattr(candidate, "remove_unfinished", lambda _task: ())
    monkeypatch.setattr(ownership, "_published_sha256", lambda _model: hashlib.sha256(OURS).hexdigest())
    monkeypatch.setattr(site, "read_elsewhere", lambda _service: frozenset())
    return made


@pytest.fixture
def place(world: Any, tmp_path: Path) -> Site:
    host = Host(control=world, repository=tmp_path, mark=MARK)
    return Site(name="street", base_url="http://x/serve", service=world, host=host)


def put(repository: Path, name: str, network: bytes) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.onnx").write_bytes(network)


def left(repository: Path) -> list[str]:
    return sorted(path.name for path in repository.iterdir())


def test_what_a_killed_run_left_goes(place: Site, world: World, tmp_path: Path) -> None:
    """Registration, model and folder, since the folder holds what that run published; then it is noted."""
    put(tmp_path, "street_3", OURS)
    assert candidate._sweep(DEAD, place) == "version 3 of ClearML task dead"
    assert left(tmp_path) == []
    assert world.done == ["unregister 3", "unload street_3"]
    assert world.stage("dead") == reuse.TAKEN_BACK


def test_a_model_that_another_clearml_server_put_under_that_number_serves_on(
    place: Site, world: World, tmp_path: Path
) -> None:
    """The dead run had only noted its number, so it was free for others: nothing of its own is there."""
    put(tmp_path, "street_3", THEIRS)
    assert "street_3 stays" in candidate._sweep(DEAD, place)
    assert left(tmp_path) == ["street_3"]
    assert world.done == ["unregister 3"]
    assert world.stage("dead") == reuse.TAKEN_BACK


def test_a_model_that_another_service_uses_serves_on(
    place: Site, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same ClearML server, with the same content: it says so itself."""
    monkeypatch.setattr(site, "read_elsewhere", lambda _service: frozenset({"street_3"}))
    put(tmp_path, "street_3", OURS)
    assert "another serving service uses it" in candidate._sweep(DEAD, place)
    assert left(tmp_path) == ["street_3"]
    assert "unload street_3" not in world.done


def test_what_triton_refuses_to_let_go_is_tried_again(place: Site, world: World, tmp_path: Path) -> None:
    """It is not noted as taken back until it is; the second try finds it by its folder."""
    put(tmp_path, "street_3", OURS)
    world.refused = "street_3"
    assert "left stays" in candidate._sweep(DEAD, place)
    assert (left(tmp_path), world.stage("dead")) == (["street_3"], "")
    world.refused = ""
    candidate._sweep(DEAD, place)
    assert (left(tmp_path), world.stage("dead")) == ([], reuse.TAKEN_BACK)


def test_only_half_written_folders_of_this_service_and_endpoint_go(place: Site, tmp_path: Path) -> None:
    """Another service may be writing there this moment."""
    stay = (".street_4.of-ffffffff.ab12cd34", ".street_4.ab12cd34", f".cars_1.of-{MARK}.ab12cd34", "street_3")
    for name in (*stay, f".street_4.of-{MARK}.ab12cd34", f".street_5_detector.of-{MARK}.ab12_d34"):
        (tmp_path / name / "1").mkdir(parents=True)
    place.host.sweep("street")
    assert left(tmp_path) == sorted(stay)


def job_of(place: Site) -> Any:
    """As much of a job as these parts ask for."""
    chosen = SimpleNamespace(inputs=Inputs(made_of="a", judged_by="j"), params=None, spec_text="")
    request = SimpleNamespace(force=False)
    return SimpleNamespace(
        site=place, chosen=chosen, request=request, settings=Settings(), steps=Steps(), course=Course()
    )  # fmt: skip


def test_the_number_of_a_dead_run_is_gone_on_with_only_if_its_folders_are(place: Site, tmp_path: Path) -> None:
    """Empty, or holding what it published; with somebody else's model under it, a new number is taken."""
    job = job_of(place)

    def used() -> int | None:
        use = candidate.use_of(job, [DEAD], "m", ServiceState())
        return use.version if use else None

    assert used() == 3
    put(tmp_path, "street_3", OURS)
    assert used() == 3
    (tmp_path / "street_3" / "1" / "model.onnx").write_bytes(THEIRS)
    assert used() is None


class FailedError(Exception):
    pass


def fail_after_loading(
    place: Site, monkeypatch: pytest.MonkeyPatch, *, adopts: str, created: bool
) -> tuple[Any, list[str]]:
    """Bring version 3 to Triton, and fail; return the job and what is left in the repository."""
    model = TritonModel(
        name="street_3", version=1, repository=place.host.repository, backend="python", created=created
    )  # fmt: skip
    monkeypatch.setattr(serve, "models_of", lambda *_arguments, **_options: ())
    monkeypatch.setattr("tao2serve.deployment.host.write_models", lambda *_arguments, **_options: (model,))
    monkeypatch.setattr(Host, "load", lambda *_arguments: True)
    monkeypatch.setattr(World, "address", "triton", raising=False)
    job = job_of(place)
    product = SimpleNamespace(made=SimpleNamespace(model=None))
    wanted: Any = SimpleNamespace(endpoint=place.version(3), was_ready=False, adopts=adopts, product=product)
    with pytest.raises(FailedError), undone_on_failure() as undo:
        serve.bring_to_triton(wanted, job, undo)
        raise FailedError
    return job, left(place.host.repository or Path())


def test_a_failed_run_leaves_folders_that_it_only_found(
    place: Site, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same content, put there by another service: a missed gate must not remove what that one serves."""
    put(tmp_path, "street_3", OURS)
    job, there = fail_after_loading(place, monkeypatch, adopts="", created=False)
    assert there == ["street_3"]
    assert world.done == ["unregister 3"]
    assert job.course.left == []


def test_a_failed_run_removes_what_the_run_that_it_went_on_with_had_written(
    place: Site, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From when it is noted that it goes on with it, nobody else would."""
    put(tmp_path, "street_3", OURS)
    _, there = fail_after_loading(place, monkeypatch, adopts="dead", created=False)
    assert there == []
    assert world.stage("dead") == reuse.ADOPTED


@pytest.mark.parametrize(("refused", "stage"), [("", reuse.TAKEN_BACK), ("street_3", "")])
def test_a_failed_run_says_that_it_took_all_back_only_if_it_did(
    refused: str, stage: str, place: Site, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next run has to see to it."""
    put(tmp_path, "street_3", OURS)
    world.refused = refused
    job, _ = fail_after_loading(place, monkeypatch, adopts="", created=True)
    assert bool(job.course.left) == bool(refused)
    logger = SimpleNamespace(report_text=lambda *_, **__: None, report_histogram=lambda *_, **__: None)
    task = SimpleNamespace(get_logger=lambda: logger, set_configuration_object=lambda **_: None)

    @contextmanager
    def operation(*_arguments: Any, **_options: Any) -> Any:
        yield SimpleNamespace(
            task=task, turn=None, record=lambda *_: None, note=lambda **properties: world.mark("own", **properties)
        )

    monkeypatch.setattr(report, "Operation", operation)
    job.chosen.params = SimpleNamespace(to_dict=dict)
    with pytest.raises(FailedError), ExitStack() as stack:
        stack.enter_context(report.operating(job))
        raise FailedError
    assert world.stage("own") == stage
