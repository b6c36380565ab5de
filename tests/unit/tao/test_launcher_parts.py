"""What surrounds the launcher: secrets in its output, what its failures mean, the script in the container."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tao2serve.errors import ToolError
from tao2serve.tao import container_entry
from tao2serve.tao.child import ChildOutcome, redact
from tao2serve.tao.launcher import find_launcher
from tao2serve.tao.launcher_failures import explain_failure
from tao2serve.tao.place import Place
from tao2serve.tao.running import RunRequest
from tao2serve.tao.subtask import Subtask

SECRET = "a'b\"c\\d"


@pytest.mark.parametrize("shown", [SECRET, repr(SECRET), json.dumps(SECRET), f"--key={SECRET} {SECRET}"])
def test_secrets_are_taken_out(shown: str) -> None:
    """A key is taken out of a line, also where Python or JSON quoted it."""
    redacted = redact(f"before {shown} after", (SECRET,))
    assert "b" not in redacted.removeprefix("before")
    assert "***" in redacted


def test_no_secret_takes_out_nothing() -> None:
    """An empty secret is none."""
    assert redact("text", ("",)) == "text"


@pytest.mark.parametrize(
    ("line", "fact", "hint"),
    [
        ("ValueError: Docker CLI hasn't been logged in to a registry.", "needs a login", "docker login nvcr.io"),
        ("Docker not logged in to nvcr.io. Please run docker login nvcr.io", "needs a login", "docker login nvcr.io"),
        (
            "docker.errors.DockerException: Error while fetching server API version: ('Connection aborted.', "
            "PermissionError(13, 'Permission denied'))",
            "may not use Docker",
            "group docker",
        ),
        (
            "docker.errors.DockerException: Error while fetching server API version: ('Connection aborted.', "
            "FileNotFoundError(2, 'No such file or directory'))",
            "cannot reach Docker",
            "start Docker",
        ),
        ("Docker pull failed. 401 Client Error: Unauthorized", "could not fetch", "nvcr.io"),
        (
            'Docker instantiation failed with error: 500 Server Error: could not select device driver "" with '
            "capabilities: [[gpu]]",
            "no GPU support",
            "NVIDIA Container Toolkit",
        ),
        ("Docker instantiation failed with error: 409 Conflict", "could not start", "DockerOptions"),
        ("bash: line 1: docker: command not found", "misses the command docker", "install"),
        ("python: can't open file '/tmp/x/entry.py': [Errno 2] No such file", "cannot read the folder", "TMPDIR"),
        ("OSError: Invalid decryption. The key used to load the model is incorrect.", "could not decrypt", "key"),
        ("ModuleNotFoundError: No module named 'nvidia_tao_tf1'", "no TAO 5.0", "~/.tao/config.json"),
    ],
)
def test_known_failures_say_what_mends_them(line: str, fact: str, hint: str) -> None:
    """What the launcher, Docker and TAO print is recognised among other lines; the line itself is the evidence."""
    outcome = ChildOutcome(code=0, lines=("Traceback:", line, "INFO: Stopping container."), log=Path("run.log"))
    error = explain_failure(outcome, code=None, subject="tao detectnet_v2 export")
    assert fact in error.fact
    assert hint in error.hint
    assert error.evidence == line
    assert (error.exit_code, error.log) == (4, Path("run.log"))


def test_other_failures_show_the_last_lines() -> None:
    """What is not recognised is shown as it was printed, less what every run prints."""
    lines = ("first", "Please note that this will be deprecated going forward.", "a", "b", "ValueError: no", "end")
    outcome = ChildOutcome(code=0, lines=lines, log=Path("run.log"))
    error = explain_failure(outcome, code=1, subject="x")
    assert error.evidence == "a\nb\nValueError: no\nend"
    assert "exit code 1" in error.fact
    assert explain_failure(ChildOutcome(code=0, lines=(), log=Path("l")), code=None, subject="x").evidence


@pytest.fixture
def in_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the container is given, with the key and a request for the module `tao_fake.export`."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("TF_ENABLE_AUTO_MIXED_PRECISION", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "before")
    (tmp_path / "key").write_text(SECRET)
    request = {"module": "tao_fake_export", "arguments": ["--model", "a b.tlt"]}
    (tmp_path / "request.json").write_text(json.dumps(request))
    return tmp_path


@pytest.mark.parametrize(
    ("ending", "code"), [("pass", 0), ("sys.exit()", 0), ("sys.exit(0)", 0), ("sys.exit(3)", 3), ("sys.exit('x')", 1)]
)
def test_the_script_runs_the_module(in_container: Path, ending: str, code: int) -> None:
    """The module gets arguments and key as its command line would; key file gone, exit code left behind."""
    met = in_container / "met.json"
    (in_container / "tao_fake_export.py").write_text(
        "import json, sys\nfrom pathlib import Path\nassert __name__ == '__main__'\n"
        f"Path({str(met)!r}).write_text(json.dumps(sys.argv[1:]))\n{ending}\n"
    )
    assert container_entry.main(in_container) == code
    assert json.loads(met.read_text()) == ["--model", "a b.tlt", f"--key={SECRET}"]
    assert json.loads((in_container / "status.json").read_text()) == {"started": True, "code": code}
    assert not (in_container / "key").exists()


def test_the_script_leaves_a_code_when_the_module_raises(in_container: Path) -> None:
    """An exception passes on, and the status says failure."""
    (in_container / "tao_fake_export.py").write_text("raise ValueError('no')")
    with pytest.raises(ValueError, match="no"):
        container_entry.main(in_container)
    assert json.loads((in_container / "status.json").read_text())["code"] == 1


def test_a_request_does_not_show_its_key() -> None:
    """The key is not part of the value's text, which logs and tracebacks show."""
    place = Place(way="launcher", program=Path("tao"))
    subtask = Subtask(name="export", arguments=())
    request = RunRequest(subtask=subtask, place=place, results=Path("r"), log=Path("l"), key=SECRET)
    assert SECRET not in repr(request)
    assert repr(SECRET) not in repr(request)


def test_where_the_launcher_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting names it, else PATH has it, else there is none; a setting that names nothing is an error."""
    program = tmp_path / "tao"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_launcher() is None
    program.write_text("#!/bin/sh\n")
    with pytest.raises(ToolError, match="is no program"):
        find_launcher(program)
    program.chmod(0o755)
    assert find_launcher() == program
    assert find_launcher(program) == program
    with pytest.raises(ToolError, match="is no program"):
        find_launcher(tmp_path)
    with pytest.raises(ToolError, match="is no program"):
        find_launcher(Path("~nobody-is-called-so/tao"))
