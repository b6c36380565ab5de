"""What a sweep and a search leave behind, whole or interrupted; the load itself is a model in no real time."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from loadtest_samples import plan
from queue_model import QueueModel

import tao2serve.loadtest
from tao2serve.cli.load_job import Job
from tao2serve.cli.load_options import Load, Search
from tao2serve.cli.output import InterruptionError
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import ServiceError
from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult, OpenLoop, parse_gate

SEARCH = Load(loads=(), search=Search(start_rps=10, arrivals="poisson", within_ratio=0.05, budget_s=10_000))


def job(load: Load, output: Path) -> Job:
    return Job(
        load=load, gates=[parse_gate("p99=50ms")], output=output, compare=None, tolerance_ratio=0.1, price_per_hour=None
    )


def modelled(monkeypatch: pytest.MonkeyPatch, *, ends_after: int | None = None, error: type[BaseException]) -> None:
    model = QueueModel(service_s=0.01)

    def run(asked: LoadPlan, *, directory: Path, **_: object) -> LoadResult:
        if len(model.plans) == ends_after:
            raise error("endpoint", "is gone") if issubclass(error, ServiceError) else error
        directory.mkdir(parents=True, exist_ok=True)
        return model(asked)

    monkeypatch.setattr(tao2serve.loadtest, "run_load_test", run)


def kept(folder: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return document


def test_an_interrupted_search_keeps_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of the runs that were made is there, says that it was interrupted, and the error where it is."""
    modelled(monkeypatch, ends_after=3, error=KeyboardInterrupt)
    with pytest.raises(InterruptionError) as caught, shown_steps(io.StringIO()) as steps:
        job(SEARCH, tmp_path).several(plan(), steps)
    assert caught.value.aftermath == f"the runs that were made are kept: {tmp_path / 'report.html'}"
    highest = kept(tmp_path)["highest"]
    assert isinstance(highest, dict)
    assert (highest["holds_rps"], highest["confirmed"]) == (40, False)
    assert "The search was interrupted" in highest["confidence"]
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["01-10rps", "02-20rps", "03-40rps"]


def test_an_endpoint_that_goes_away_keeps_the_runs_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the endpoint's, with its own exit code, and says what is kept."""
    modelled(monkeypatch, ends_after=1, error=ServiceError)
    loads = (ClosedLoop(users=1), ClosedLoop(users=2))
    with pytest.raises(ServiceError) as caught, shown_steps(io.StringIO()) as steps:
        job(Load(loads=loads), tmp_path).several(plan(), steps)
    assert "are kept" in caught.value.aftermath
    runs = kept(tmp_path)["runs"]
    assert isinstance(runs, list)
    assert len(runs) == 1


def test_nothing_is_kept_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended in its first run a sweep leaves no report that has no run."""
    modelled(monkeypatch, ends_after=0, error=KeyboardInterrupt)
    with pytest.raises(InterruptionError) as caught, shown_steps(io.StringIO()) as steps:
        job(Load(loads=(OpenLoop(rate_rps=10), OpenLoop(rate_rps=20))), tmp_path).several(plan(), steps)
    assert not caught.value.aftermath
    assert not (tmp_path / "result.json").exists()


def test_a_whole_search_gives_a_document_and_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document that is printed is the one that is kept."""
    modelled(monkeypatch, error=KeyboardInterrupt)
    with shown_steps(io.StringIO()) as steps:
        told, text = job(SEARCH, tmp_path).several(plan(run_time_s=30), steps)
    assert told["passed"] is True
    assert kept(tmp_path)["highest"] == told["highest"]
    assert "hold p99=50ms" in text
