"""The command line's own parts: steps on a stream, errors as text and JSON, durations, stdout kept clean."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tao2serve.cli.main import run
from tao2serve.cli.options import percent, seconds
from tao2serve.cli.output import InterruptionError, error_document, print_error, quiet
from tao2serve.cli.progress import _Board, shown_count, shown_steps
from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.steps import StepEvent, attempt, undone_on_failure


def test_steps_are_plain_lines_where_there_is_no_terminal() -> None:
    """Each step begins and ends with a line; a failed one says so and names itself in the error."""
    stream = io.StringIO()
    with pytest.raises(InputError) as caught, shown_steps(stream) as steps:
        with steps.step("first") as step:
            step.note("went well")
        with steps.step("second"):
            raise InputError("file", "is bad")
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["...", "done", "...", "failed"]
    assert lines[1].endswith("went well")
    assert caught.value.step == "second"
    assert [entry["name"] for entry in steps.to_list()] == ["first"]


def test_steps_are_a_live_list_on_a_terminal() -> None:
    """Done steps get a tick, the failed one a cross, with their times."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with pytest.raises(InputError), shown_steps(stream) as steps:
        with steps.step("first") as step:
            step.news("half way")
            step.note("went well")
        with steps.step("second"):
            raise InputError("file", "is bad")
    shown = stream.getvalue()
    assert "✓" in shown
    assert "✗" in shown
    assert "went well" in shown


def test_a_watcher_whose_pipe_is_gone_stops_nothing() -> None:
    """`tao2serve demo | head`: steps go on, and so does tidying up."""

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    done = []
    with shown_steps(Gone()) as steps:
        with steps.step("first") as step:
            step.news("half way")
        with steps.step("tidy up"):
            done.append("tidied")
    assert done
    assert len(steps.to_list()) == 2


def test_what_was_done_is_undone_last_first_unless_it_shall_stay() -> None:
    """A failure undoes, success and pop_all do not, and a failing undo hides nothing."""
    undone: list[str] = []

    def broken() -> None:
        raise OSError("cannot")

    with pytest.raises(InputError), undone_on_failure() as undo:
        undo.callback(undone.append, "first")
        undo.callback(attempt, broken)
        undo.callback(undone.append, "second")
        raise InputError("x", "failed")
    assert undone == ["second", "first"]
    with undone_on_failure() as undo:
        undo.callback(undone.append, "never")
    with pytest.raises(InputError), undone_on_failure() as undo:
        undo.callback(undone.append, "never")
        undo.pop_all()
        raise InputError("x", "failed")
    assert undone == ["second", "first"]


def test_an_interrupt_with_json_is_one_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 130, said on stderr or as a document."""
    from tao2serve.sandbox import stack

    def interrupted(_home: Path, **_options: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(stack, "down", interrupted)
    assert run(["sandbox", "down", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["exit_code"] == 130
    assert run(["sandbox", "down"]) == 130
    shown = capsys.readouterr()
    assert "interrupted" in shown.err
    assert not shown.out


@pytest.mark.parametrize("as_json", [True, False])
def test_an_interrupt_in_a_step_names_it_and_what_is_left(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The parser would pass on no more than an exit code, so it becomes an error before it comes there."""
    with pytest.raises(InterruptionError) as caught, shown_steps(io.StringIO()) as steps, steps.step("load on Triton"):
        interrupt = KeyboardInterrupt()
        interrupt.add_note("aftermath: version 4 was taken back")
        raise interrupt
    print_error(caught.value, as_json=as_json)
    shown = capsys.readouterr()
    if as_json:
        document = json.loads(shown.out)
        assert (document["exit_code"], document["step"]) == (130, "load on Triton")
        assert document["aftermath"] == "version 4 was taken back"
    else:
        lines = ["interrupted", "  step: load on Triton", "  then: version 4 was taken back", "  try:  run it again"]
        assert shown.err.splitlines() == lines


def test_the_live_list_keeps_the_running_step_in_sight() -> None:
    """On a short, narrow terminal the last rows show, a line each; at the end all of them do, in full."""
    from rich.console import Console

    board = _Board()
    for number in range(20):
        board.see(StepEvent(kind="started", name=f"step {number}"))
        board.see(StepEvent(kind="done" if number < 19 else "news", name=f"step {number}", detail="long " * 30))
    console = Console(width=60, height=10, file=io.StringIO())
    with console.capture() as running:
        console.print(board)
    assert len(running.get().splitlines()) == 8
    assert "step 19" in running.get()
    assert "step 3 " not in running.get()
    board.finished = True
    with console.capture() as finished:
        console.print(board)
    assert "step 0 " in finished.get()
    assert finished.get().count("long") == 20 * 30


def test_many_pictures_are_counted_by_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar goes to the stream given, the result to stdout; one picture, or --json, shows nothing."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with shown_count(stream, total=3, shown=True) as count:
        for refused in (False, True, False):
            count.say("a.jpg: \x1b[31m[red]1[/red] detections")
            count.step(refused)
        count.note("b.jpg: \x07refused")
    assert "b.jpg: \N{REPLACEMENT CHARACTER}refused" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "1 refused" in stream.getvalue()
    assert capsys.readouterr().out == "a.jpg: \N{REPLACEMENT CHARACTER}[31m[red]1[/red] detections\n" * 3
    for total, shown in ((1, True), (3, False)):
        silent = Terminal()
        with shown_count(silent, total=total, shown=shown) as count:
            count.step(True)
        assert silent.getvalue() == ""


def test_many_pictures_are_counted_by_a_line_now_and_then_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line when the last one is five seconds old, and none for each picture."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with shown_count(stream, total=2000, shown=True) as count:
        for number in range(2000):
            now[0] += 0.01
            count.step(number == 7)
    assert stream.getvalue().splitlines()[0].endswith("of 2,000 pictures, 1 refused")
    assert 3 <= len(stream.getvalue().splitlines()) <= 4


def test_an_import_that_swallows_the_interrupt_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An extension module turns KeyboardInterrupt into ImportError: still 130."""
    from tao2serve.sandbox import stack

    def importing(_home: Path, **_options: object) -> bool:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error
        return True

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(stack, "down", importing)
    try:
        assert run(["sandbox", "down"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "defect" not in capsys.readouterr().err


def test_an_error_reads_subject_fact_evidence_hint_log(capsys: pytest.CaptureFixture[str]) -> None:
    """As text on stderr, as one document on stdout; never both."""
    error = ServiceError("Triton", "is away", evidence="refused", hint="start it", log=Path("x.log"))
    error.step = "load"
    print_error(error, as_json=False)
    text = capsys.readouterr()
    assert not text.out
    assert [line.strip().split(":")[0] for line in text.err.splitlines()] == ["error", "step", "seen", "try", "log"]
    print_error(error, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document == error_document(error)
    assert document["exit_code"] == 5
    assert document["error"] == {
        "subject": "Triton", "fact": "is away", "evidence": "refused", "hint": "start it", "log": "x.log",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), [("20s", 20), ("500ms", 0.5), ("2m", 120), ("1.5", 1.5), (" 3 s", 3)])
def test_durations_are_read(text: str, wanted: float) -> None:
    """Milliseconds, seconds (also without a unit) and minutes."""
    assert seconds(text, option="--run-time") == wanted


@pytest.mark.parametrize("text", ["", "s", "-1s", "1h", "1s2", "nan"])
def test_other_durations_are_refused(text: str) -> None:
    """Exit 2 with the option's name."""
    with pytest.raises(UsageError, match="--run-time"):
        seconds(text, option="--run-time")


def test_chatter_goes_to_the_log_and_errors_name_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What Python code and child processes print inside lands in the log, and stdout is as it was afterwards."""
    log = tmp_path / "logs" / "x.log"
    with pytest.raises(ServiceError) as caught, quiet(log) as terminal:
        os.write(1, b"from a library\n")
        print("from python", file=sys.stderr)
        terminal.write("progress\n")
        raise ServiceError("x", "failed")
    assert caught.value.log == log
    os.write(1, b"result\n")
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert "progress" in err
    assert "from a library" in log.read_text()


def test_a_folder_that_cannot_be_written_is_wrong_usage(tmp_path: Path) -> None:
    """Exit 2 naming the folder, not a defect, and the way to another that this command has."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written") as caught, quiet(tmp_path / "file" / "x.log"):
        pass
    assert "TAO2SERVE_HOME" in caught.value.hint
    assert "-o" not in caught.value.hint
    assert "Errno" not in caught.value.evidence
    with pytest.raises(UsageError) as caught, quiet(tmp_path / "file" / "x.log", remedy="choose another -o DIR"):
        pass
    assert caught.value.hint == "choose another -o DIR"


def test_a_machine_without_a_temporary_folder_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 4, naming TMPDIR: by `deploy`, which needs one before all else."""
    nowhere = [str(tmp_path / "not there")]
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: nowhere)
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    assert run(["deploy", "model.hdf5", "--endpoint", "street", "--json"]) == 4
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["subject"] == "temporary folder"
    assert "TMPDIR" in error["hint"]
    assert nowhere[0] in error["evidence"]


def test_a_defect_where_no_log_can_be_kept_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a state folder nor a temporary one: exit 1 and the sentence."""
    from tao2serve.sandbox import stack

    def broken(_home: Path, **_options: object) -> bool:
        raise RuntimeError("unforeseen")

    (tmp_path / "logs").write_text("no folder")
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "not there")])
    monkeypatch.setattr(stack, "down", broken)
    assert run(["sandbox", "down"]) == 1
    assert "unforeseen" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["../pictures/demo", "nearby/../../pictures/demo"])
def test_the_demo_names_its_folder_without_detours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """What is printed of a folder outside this one is its absolute path, in which no ../ is left."""
    from tao2serve import demo

    asked: list[Path] = []

    def remembering(*, output: Path, **_others: object) -> None:
        asked.append(output)
        raise UsageError("demo", "goes no further")

    (tmp_path / "work" / "nearby").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(demo, "run_demo", remembering)
    assert run(["demo", "-o", given]) == 2
    assert asked == [tmp_path.resolve() / "pictures" / "demo"]


def test_undoing_never_hides_the_first_failure(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be undone is logged; what undoing is for goes on."""

    def broken() -> None:
        raise ServiceError("Triton", "is away")

    attempt(broken)
    assert "is away" in caplog.text


def test_wrong_usage_with_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Also what the parser itself refuses."""
    assert run(["deploy", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["outcome"] == "error"
    assert "--endpoint" in document["error"]["fact"]


def test_a_defect_is_reported_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, a sentence, and the traceback in a log."""
    from tao2serve.sandbox import stack

    def broken(_home: Path, **_options: object) -> bool:
        raise RuntimeError("unforeseen")

    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    monkeypatch.setattr(stack, "down", broken)
    assert run(["sandbox", "down"]) == 1
    shown = capsys.readouterr().err
    assert "unforeseen" in shown
    assert "Traceback" not in shown
    assert "Traceback" in (tmp_path / "logs" / "tao2serve-defect.log").read_text()


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (("tao", "run", "spec.txt", "--results", "spec.txt", "--via", "docker", "--skip-preflight"), "spec.txt"),
        (("tao", "train", "spec.txt", "-r", "spec.txt/x", "--via", "docker", "--skip-preflight"), "spec.txt/x"),
        (("adopt", "x" * 300), "x" * 300),
    ],
)
def test_a_path_that_cannot_be_used_is_no_defect(
    words: tuple[str, ...],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 2, naming the path and what the system says of it; where it came up is in the log."""
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "spec.txt").write_bytes((SAMPLE / "unpruned" / "experiment_spec.txt").read_bytes())
    for name in ("HOME", "TAO2SERVE_HOME", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run([*words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["subject"], error["fact"]) == (folder, "cannot be used")
    assert error["evidence"] in ("File exists", "Not a directory", "File name too long")
    assert "Traceback" in Path(error["log"]).read_text()


def test_shares_are_numbers_with_or_without_a_percent_sign() -> None:
    """`--canary 10%` is what a user may write; a word exits 2 and says what to write."""
    assert [percent(text, option="--canary") for text in ("10", "10%", " 2.5 % ")] == [10, 10, 2.5]
    with pytest.raises(UsageError) as caught:
        percent("ten", option="--canary")
    assert "'ten'" in str(caught.value)
    assert "--canary 10" in caught.value.hint


@pytest.mark.parametrize("command", [("promote", "street"), ("deploy", "x.hdf5", "--endpoint", "street")])
@pytest.mark.parametrize("share", ["ten", "0%", "-3", "101", "nan"])
def test_a_share_that_is_none_is_refused_without_asking_anybody(
    command: tuple[str, ...],
    share: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Exit 2, by `deploy` and `promote` alike, although no ClearML is configured here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    assert run([*command, "--canary", share, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["subject"] == "--canary"
    assert error["hint"]
