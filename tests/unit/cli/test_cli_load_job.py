"""What a load test's command knows beside its run is in the files that it leaves, not only in what it prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loadtest_samples import plan, record, result
from queue_model import QueueModel

from tao2serve import loadtest
from tao2serve.cli import load_job
from tao2serve.cli.load_job import Job
from tao2serve.cli.load_options import Load, Search
from tao2serve.deployment.load_report import Deployed
from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult, parse_gate
from tao2serve.loadtest.cold_start import ColdStart
from tao2serve.loadtest.scenarios import scenario_of
from tao2serve.steps import Steps

pytest.importorskip("plotly")

DEPLOYED = Deployed(task_id="a1b2", endpoint="people", version=4, environment={"precision": "int8"})
COLD = ColdStart(models=("people_4",), load_s=1.25, requests_ms=(80.2, 20.9))


def job(directory: Path, *users: int) -> Job:
    load = Load(loads=tuple(ClosedLoop(users=count) for count in users), scenario=scenario_of("offline"))
    return Job(
        load=load, gates=(), output=directory, compare=None, tolerance_ratio=0.1, price_per_hour=None,
        deployed=DEPLOYED, cold=COLD,
    )  # fmt: skip


@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("users", [(1,), (1, 2)])
def test_files_and_output_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: tuple[int, ...], takes: bool
) -> None:
    """Scenario, cold start and the ClearML task, of one run and of several; a task that took nothing is not named."""
    seen: list[dict[str, Any]] = []

    def tell(*_: object, directory: Path, **__: object) -> bool:
        seen.append(json.loads((directory / "result.json").read_text("utf-8")))
        return takes

    monkeypatch.setattr(load_job, "tell", tell)
    monkeypatch.setattr(
        loadtest, "run_load_test",
        lambda asked, **_: replace(result([record(index / 20, 10) for index in range(200)]), plan=asked),
    )  # fmt: skip
    mine = job(tmp_path, *users)
    told, _ = (mine.one if len(users) == 1 else mine.several)(plan(), Steps())
    kept = json.loads((tmp_path / "result.json").read_text("utf-8"))
    page = (tmp_path / "report.html").read_text("utf-8")
    for member in ("scenario", "cold_start", "reported_to"):
        assert kept[member] == told[member]
    assert kept["scenario"]["name"] == "offline"
    assert kept["cold_start"]["requests_ms"] == [80.2, 20.9]
    assert kept["reported_to"] == ("a1b2" if takes else None)
    assert seen[0]["reported_to"] == "a1b2"
    assert "MLPerf offline: throughput 2" in page
    assert "loaded in 1.2 s; first answers 80, 21 ms" in page
    assert ("ClearML task a1b2" in page) is takes


def test_an_earlier_series_does_not_lie_beside_another_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs and its table are gone, of one run and of fewer; what is not ours or compared with stays."""
    monkeypatch.setattr(load_job, "tell", lambda *_, **__: True)
    monkeypatch.setattr(
        loadtest, "run_load_test",
        lambda asked, **_: replace(result([record(index / 20, 10) for index in range(200)]), plan=asked),
    )  # fmt: skip
    runs = tmp_path / "runs"
    job(tmp_path, 1, 2, 4).several(plan(), Steps())
    mine = runs / "03-4users" / "mine.txt"
    mine.write_text("kept", encoding="utf-8")
    job(tmp_path, 1, 8).several(plan(), Steps())
    assert sorted(path.name for path in runs.iterdir()) == ["01-1users", "02-8users", "03-4users"]
    assert list(mine.parent.iterdir()) == [mine]
    baseline = runs / "01-1users" / "result.json"
    replace(job(tmp_path, 1), compare=baseline).one(plan(), Steps())
    assert baseline.exists()
    mine.unlink()
    job(tmp_path, 1).one(plan(), Steps())
    assert not (tmp_path / "series.csv").exists()
    assert not runs.exists()


def test_a_sweep_that_is_interrupted_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of the runs that were made, which says that there were to be more, and does not pass."""
    answers = iter([result([record(index / 20, 10) for index in range(200)])])

    def interrupted(asked: LoadPlan, **_: object) -> LoadResult:
        if (found := next(answers, None)) is None:
            raise KeyboardInterrupt
        return replace(found, plan=asked)

    monkeypatch.setattr(loadtest, "run_load_test", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, 1, 2).several(plan(), Steps())
    told = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert (len(told["runs"]), told["runs"][0]["passed"]) == (1, True)
    assert (told["cut_short"], told["passed"], told["reported_to"]) == (True, False, None)


def test_the_first_look_of_a_search_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number 0, so that the other numbers are those of the runs in the document."""
    monkeypatch.setattr(load_job, "tell", lambda *_, **__: True)
    monkeypatch.setattr(loadtest, "run_load_test", lambda asked, **_: QueueModel(service_s=0.01)(asked))
    search = Search(start_rps=None, arrivals="constant", within_ratio=0.5, budget_s=10_000)
    mine = replace(job(tmp_path), load=Load(loads=(), search=search), gates=(parse_gate("p99=50ms"),))
    told, _ = mine.several(plan(run_time_s=5), Steps())
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names[0] == "00-1users"
    assert [name[:2] for name in names[1:]] == [f"{number:02d}" for number in range(1, len(told["runs"]) + 1)]
