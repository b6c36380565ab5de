"""The whole sequence: what is finished is skipped, what was cut short goes again, what changed is refused."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tao2serve.errors import ServiceError, ToolError, UsageError
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao.place import Place
from tao2serve.tao.sequence import (
    STATE,
    SequenceRequest,
    SequenceStep,
    StepReport,
    finished_steps,
    run_sequence,
    sequence_steps,
)
from tao2serve.tao.subtask import PruneOptions

PLACE = Place(way="inside", program=Path("python"))
NAMES = ["train", "evaluate", "prune", "retrain", "evaluate-retrained", "export"]


class Tao:
    """Leaves each step's file, or fails at one."""

    def __init__(self, fails_at: str = "", leaves_nothing: str = "") -> None:
        self.ran: list[str] = []
        self.fails_at = fails_at
        self.leaves_nothing = leaves_nothing

    def __call__(self, step: SequenceStep, log: Path) -> None:
        self.ran.append(step.name)
        log.write_text("Mean average_precision (in %): 50.0\n" if "evaluate" in step.name else "")
        if step.name == "export":
            assert not step.output.exists()
        if step.name == self.fails_at:
            step.output.write_bytes(b"half")
            raise ToolError("tao", "failed")
        if step.name != self.leaves_nothing:
            step.output.write_bytes(b"whole")


@pytest.fixture
def request_(tmp_path: Path) -> SequenceRequest:
    spec = tmp_path / "spec.txt"
    spec.write_bytes((SAMPLE / "unpruned" / "experiment_spec.txt").read_bytes())
    return SequenceRequest(spec=spec, results=tmp_path / "results", name="street")


def run(request: SequenceRequest, tao: Tao) -> tuple[StepReport, ...]:
    return run_sequence(request, PLACE, run=tao, on_step=lambda _step, _report: None)


def test_all_once_and_then_nothing(request_: SequenceRequest) -> None:
    """Six steps in order; again, all are skipped, and say what they found."""
    tao = Tao()
    reports = run(request_, tao)
    assert tao.ran == NAMES == [report.name for report in reports]
    assert reports[1].mean_average_precision == 0.5
    again = Tao()
    assert [report.state for report in run(request_, again)] == ["skipped"] * 6
    assert again.ran == []


@pytest.mark.parametrize("at", NAMES)
def test_what_failed_goes_again(request_: SequenceRequest, at: str) -> None:
    """Whatever step is cut short, a half file of it left, it and what follows run, and nothing before it."""
    with pytest.raises(ToolError, match="failed"):
        run(request_, Tao(fails_at=at))
    tao = Tao()
    run(request_, tao)
    assert tao.ran == NAMES[NAMES.index(at) :]


def test_a_step_that_leaves_nothing_is_not_finished(request_: SequenceRequest) -> None:
    """Success without its file is none, and the step goes again."""
    with pytest.raises(ToolError, match="did not leave its file"):
        run(request_, Tao(leaves_nothing="prune"))
    tao = Tao()
    run(request_, tao)
    assert tao.ran[0] == "prune"


def test_a_lost_file_is_made_again_with_all_that_follows(request_: SequenceRequest) -> None:
    """An evaluation or export that is gone runs again; a training that is gone would take its last checkpoint."""
    run(request_, Tao())
    steps = {step.name: step for step in sequence_steps(request_)}
    steps["export"].output.unlink()
    tao = Tao()
    run(request_, tao)
    assert tao.ran == ["export"]
    steps["evaluate"].output.unlink()  # of which nothing else is made
    tao = Tao()
    run(request_, tao)
    assert tao.ran == ["evaluate"]
    steps["prune"].output.unlink()
    tao = Tao()
    with pytest.raises(UsageError, match="step retrain was finished"):
        run(request_, tao)
    assert tao.ran == []  # refused before the pruned model is made anew
    steps["train"].output.write_bytes(b"another training")
    with pytest.raises(UsageError, match="no longer what it was"):
        run(request_, Tao())


@pytest.mark.parametrize("change", ["spec", "threshold"])
def test_other_inputs_are_refused(request_: SequenceRequest, change: str) -> None:
    """Finished steps are not mixed with others: another spec or option wants results of its own."""
    run(request_, Tao())
    if change == "spec":
        request_.spec.write_text(request_.spec.read_text() + "# more\n")
    else:
        request_ = SequenceRequest(
            spec=request_.spec, results=request_.results, name="street", prune=PruneOptions(threshold=0.5)
        )
    with pytest.raises(UsageError, match="another spec or other options"):
        run(request_, Tao())


def test_one_at_a_time_and_a_broken_state(request_: SequenceRequest) -> None:
    """A second run in the same results is told so; a state file that is none is named."""
    request_.results.mkdir()
    with (request_.results / ".tao2serve-run.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ServiceError, match="by another run"):
            run(request_, Tao())
    (request_.results / STATE).write_text("{")
    with pytest.raises(UsageError, match="how far the run came"):
        run(request_, Tao())


def test_a_refused_run_leaves_the_retraining_as_it_was(request_: SequenceRequest) -> None:
    """With another spec, what is finished keeps the spec of the retraining that it was made from."""
    run(request_, Tao())
    made = request_.results / "experiment_spec_retrain.txt"
    before = made.read_bytes()
    request_.spec.write_text(request_.spec.read_text() + "# more\n")
    with pytest.raises(UsageError, match="another spec or other options"):
        run(request_, Tao())
    assert made.read_bytes() == before


def test_where_it_is_run_from_makes_no_difference(
    request_: SequenceRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files by relative and by whole paths are the same run; the log is found from either."""
    monkeypatch.chdir(tmp_path)
    relative = SequenceRequest(spec=Path("spec.txt"), results=Path("results"), name="street")
    run(relative, Tao())
    monkeypatch.chdir("/")
    again = Tao()
    reports = run(request_, again)
    assert again.ran == []
    assert all(report.log.is_file() for report in reports)


def test_what_would_be_skipped_is_known_before(request_: SequenceRequest) -> None:
    """As the run itself would have it: up to the first that is not finished, and refused where the run is."""
    assert finished_steps(request_, PLACE) == ()
    assert not request_.results.exists()
    with pytest.raises(ToolError):
        run(request_, Tao(fails_at="retrain"))
    assert finished_steps(request_, PLACE) == ("train", "evaluate", "prune")
    run(request_, Tao())
    sequence_steps(request_)[4].output.unlink()
    assert finished_steps(request_, PLACE) == ("train", "evaluate", "prune", "retrain", "export")
    request_.spec.write_text(request_.spec.read_text() + "# more\n")
    with pytest.raises(UsageError, match="another spec or other options"):
        finished_steps(request_, PLACE)
