"""A bare installation, without extras: everything imports and every help text answers, fast."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tao2serve

# These run inside other programs and import what is theirs: locust, starlette (extra `sandbox`).
INSIDE_OTHERS = ("tao2serve.loadtest.generator", "tao2serve.sandbox.clearml_server")
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(tao2serve.__path__, "tao2serve.")
    if not module.name.startswith(INSIDE_OTHERS)
)
COMMANDS = (
    (),
    ("demo",),
    ("sandbox",),
    ("sandbox", "up"),
    ("sandbox", "status"),
    ("sandbox", "env"),
    ("sandbox", "logs"),
    ("sandbox", "down"),
    ("models",),
    ("adopt",),
    ("inspect",),
    ("export",),
    ("verify",),
    ("decode",),
    ("build",),
    ("deploy",),
    ("status",),
    ("promote",),
    ("rollback",),
    ("undeploy",),
    ("predict",),
    ("loadtest",),
    ("pipeline",),
    ("watch",),
    ("doctor",),
    ("config",),
    ("config", "show"),
    ("config", "schema"),
    ("render",),
    ("render", "compose"),
    ("render", "kubernetes"),
    ("spec",),
    ("spec", "check"),
    ("spec", "patch"),
    ("tao",),
    ("tao", "train"),
    ("tao", "prune"),
    ("tao", "retrain"),
    ("tao", "evaluate"),
    ("tao", "export"),
    ("tao", "gen-trt-engine"),
    ("tao", "run"),
    ("tao", "train"),
    ("tao", "retrain"),
    ("tao", "prune"),
    ("tao", "evaluate"),
    ("tao", "export"),
    ("tao", "gen-trt-engine"),
)


def tao2serve_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tao2serve", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    """No module needs an extra, a GPU or a server to be imported."""
    importlib.import_module(name)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "tao2serve")
def test_every_help_answers(command: tuple[str, ...]) -> None:
    """`--help` of every command prints what it does, and of every single one an example."""
    outcome = tao2serve_command(*command, "--help")
    assert outcome.returncode == 0, outcome.stderr
    assert "Usage: tao2serve" in outcome.stdout
    if command and command not in (("sandbox",), ("render",), ("config",)):
        assert "Example:" in outcome.stdout


def test_the_list_of_commands_is_complete() -> None:
    """Every command the program lists is checked above, and none of those is missing."""
    listed = set(re.findall(r"^  (\w+)  +\S", tao2serve_command("--help").stdout.split("Commands:")[1], re.MULTILINE))
    assert listed == {command[0] for command in COMMANDS if command}


def test_help_loads_nothing_heavy() -> None:
    """`tao2serve --help` answers before anything slow is imported; that is what keeps it quick."""
    program = "import sys; sys.argv = ['tao2serve', '--help']; from tao2serve.cli.main import main; main()"
    assert not {"rich", "clearml", "onnx", "numpy", "httpx", "pydantic"} & loaded_by(program)


def test_an_interrupted_program_ends_by_its_exit_code(tmp_path: Path) -> None:
    """Run as a module, 130 and no signal, also if Ctrl-C came in code that is made from text, as in dataclasses."""
    (tmp_path / "interrupted.py").write_text(
        "from contextlib import suppress\n"
        "from tao2serve.cli import main as program\n"
        "def run(_arguments):\n"
        "    with suppress(KeyboardInterrupt):\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    return 130\n"
        "program.run = run\n"
        "program.main()\n"
    )
    path = os.pathsep.join(str(place) for place in (tmp_path, Path(tao2serve.__file__).parents[1]))
    outcome = subprocess.run(
        [sys.executable, "-m", "interrupted"], env={**os.environ, "PYTHONPATH": path}, timeout=60, check=False
    )
    assert outcome.returncode == 130


def loaded_by(program: str) -> set[str]:
    """Return the top-level packages that a program has imported when it exits."""
    wrapped = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join({name.split('.')[0] for name in sys.modules})))\n" + program
    )
    outcome = subprocess.run([sys.executable, "-c", wrapped], capture_output=True, text=True, check=True)
    return set(outcome.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nonsense",), 2, "nonsense"),
        (("export",), 2, "SOURCE"),
        (("export", "missing.hdf5"), 3, "does not exist"),
        (("export", "missing.hdf5", "--precision", "fp8"), 2, "fp16"),
        (("export", "missing.hdf5", "--engine", "--workspace", "nan"), 2, "--workspace"),
        (("export", "missing.hdf5", "--calibration-images", "."), 2, "int8"),
        (("inspect", "missing.onnx"), 3, "does not exist"),
        (("verify", "missing.hdf5", "other.onnx"), 3, "does not exist"),
        (("decode", "raw.npz"), 2, "--spec"),
        (("decode", "raw.npz", "--params", "missing.json"), 3, "missing.json"),
        (("verify", "a.hdf5", "b.onnx", "--provider", "tpu"), 2, "cuda"),
        (("verify", "a.hdf5", "b.onnx", "--tensor-tolerance", "nan"), 2, "tensor_tolerance"),
        (("build", "x.hdf5"), 2, "--name"),
        (("build", "missing.hdf5", "--name", "street"), 3, "does not exist"),
        (("build", "missing.hdf5", "--name", "people_4"), 2, "people_4"),
        (("build", "missing.hdf5", "--name", "street", "--repository", "a b"), 2, "a b"),
        (("build", "missing.hdf5", "--name", "street", "--placement", "moon"), 2, "placement"),
        (("build", "missing.hdf5", "--name", "street", "--resize", "fast"), 2, "--resize"),
        (("build", "missing.hdf5", "--name", "street", "--image", "x.jpg"), 2, "--precision"),
        (("deploy", "x.hdf5"), 2, "--endpoint"),
        (("deploy", "missing.hdf5", "--endpoint", "bad-name"), 2, "bad-name"),
        (("deploy", "missing.hdf5", "--endpoint", "people_4"), 2, "people_4"),
        (("loadtest", "http://127.0.0.1:9/serve/x", "--images", ".", "--slo", "p42=1ms"), 2, "p42"),
        (("loadtest", "http://127.0.0.1:9/serve/x", "--images", ".", "--run-time", "soon"), 2, "soon"),
        (("predict", "http://127.0.0.1:9/serve/x", "missing.jpg"), 3, "missing.jpg"),
        (("sandbox", "env"), 6, "sandbox up"),
        (("models",), 2, "not configured"),
        (("models", "--task", "["), 2, "regular expression"),
        (("export", "x" * 300), 2, "not configured"),
        (("export", "."), 3, "folder"),
        (("export", "missing.hdf5", "--tag", "x"), 2, "SOURCE"),
        (("adopt", "missing"), 3, "does not exist"),
        (("adopt", "missing", "--checkpoints", "first"), 2, "best, last, all"),
        (("models", "--compare", "missing.hdf5"), 2, "not configured"),
        (("models", "missing.hdf5"), 2, "--compare"),
        (("spec", "check", "missing.txt"), 3, "missing.txt"),
        (("spec", "patch", "missing.txt", "--project", "ab", "--task", "abc"), 2, "--project"),
        (("tao", "run", "missing.txt", "--results", "r"), 3, "does not exist"),
        (("loadtest", "http://[", "--images", "."), 2, "URL"),
        (("render", "compose"), 2, "--output"),
        (("render", "compose", "-o", "out", "--tensorrt", "7.0"), 2, "10.8.0"),
        (("render", "compose", "-o", "out", "--host", "a;b"), 2, "a;b"),
        (("render", "compose", "-o", "out", "--poll-minutes", "nan"), 2, "--poll-minutes"),
        (("render", "kubernetes", "-o", "out", "--service-type", "x"), 2, "LoadBalancer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_input_gets_one_clear_error(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong usage and bad input exit with the documented code, name the trouble, and show no traceback."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    monkeypatch.setenv("CLEARML_CONFIG_FILE", f"{tmp_path}/none.conf")
    for name in ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "CLEARML_SERVING_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    outcome = tao2serve_command(*arguments)
    assert outcome.returncode == code, outcome.stderr
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not outcome.stdout


def test_doctor_with_nothing_configured_is_quick(tmp_path: Path) -> None:
    """Where nothing is configured doctor asks nobody, imports no ClearML, and finds nothing wrong."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TAO2SERVE_"))}
    environment = {**kept, "TAO2SERVE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    command = [sys.executable, "-X", "importtime", "-m", "tao2serve", "doctor", "--json"]
    started = time.monotonic()
    outcome = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert time.monotonic() - started < 10  # 2 s, on a machine that has its cores to itself
    assert outcome.returncode == 0, outcome.stdout
    document = json.loads(outcome.stdout)
    assert document["counts"]["wrong"] == 0
    assert not re.search(r"\| +(clearml|clearml_serving|tritonclient|grpc|onnx)$", outcome.stderr, re.MULTILINE)
    assert all(check["remedy"] or check["status"] != "wrong" for check in document["checks"])


def test_a_full_disk_is_no_defect() -> None:
    """When the result cannot be written the command says so and exits 4."""
    spec = Path(tao2serve.__file__).parent / "sandbox" / "sample" / "pruned" / "experiment_spec.txt"
    for option in ((), ("--json",)):
        with Path("/dev/full").open("w") as full:
            outcome = subprocess.run(
                [sys.executable, "-m", "tao2serve", "inspect", str(spec), *option],
                stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert outcome.returncode == 4, outcome.stderr
        assert "Traceback" not in outcome.stderr


def test_a_clearml_that_does_not_answer_exits_5_at_once(tmp_path: Path) -> None:
    """The SDK alone would try for ever, in silence."""
    environment = {
        **os.environ,
        "TAO2SERVE_HOME": str(tmp_path),
        "CLEARML_API_HOST": "http://127.0.0.1:9",
        "CLEARML_API_ACCESS_KEY": "key",
        "CLEARML_API_SECRET_KEY": "secret-key",
        "CLEARML_CONFIG_FILE": str(tmp_path / "none.conf"),
    }
    outcome = subprocess.run(
        [sys.executable, "-m", "tao2serve", "models", "--json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert outcome.returncode == 5, outcome.stderr
    document = json.loads(outcome.stdout)
    assert "http://127.0.0.1:9" in document["error"]["subject"]
    assert "secret-key" not in outcome.stdout + outcome.stderr
