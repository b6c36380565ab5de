"""Tuning on the real Triton and the real ClearML Serving: nothing of it stays but settings, which `deploy` uses."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clearml_state import ClearML
from command_line import CommandLine
from killed_runs import kill_in_step

from tao2serve.sandbox.samples import pictures
from tao2serve.triton.config import CONFIG_FILE, parse_config
from tao2serve.triton.control import TritonControl

pytestmark = pytest.mark.integration
MADE_UP = Path(__file__).with_name("tuning_made_up.py")
TUNE = (
    "loadtest", "street", "--images", pictures()[0].parent, "--users", "1", "--run-time", "1s", "--warmup", "0.1s",
    "--tune", "--try", "placement=ensemble", "--try", "instances=2", "--try", "max_batch_size=4",
    "--try", "queue_delay_us=250", "--blocks", "2", "--json",
)  # fmt: skip
PROPOSED = {"placement": "ensemble", "instances": 2, "max_batch_size": 4, "queue_delay_us": 250}


@dataclass(frozen=True, slots=True)
class Around:
    """What a tuning must leave as it was."""

    folders: tuple[tuple[str, str], ...]
    ready: frozenset[str]
    endpoints: str
    routes: str


def look(sandbox: CommandLine) -> Around:
    clearml, repository = ClearML(sandbox), Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"])
    with TritonControl(sandbox.environment["TAO2SERVE_TRITON_GRPC"]) as control:
        ready = frozenset(name for name, is_ready in control.models().items() if is_ready)
    return Around(
        folders=tuple((path.name, (path / CONFIG_FILE).read_text()) for path in sorted(repository.iterdir())),
        ready=ready, endpoints=clearml.configured("endpoints"), routes=clearml.configured("canary"),
    )  # fmt: skip


def made_up(sandbox: CommandLine, folder: Path, scratch: Path, *commands: Sequence[str | Path]) -> list[dict[str, Any]]:
    script, then = scratch / "run.py", json.dumps([[str(word) for word in command] for command in commands])
    script.write_text(
        f"import runpy, sys\nsys.argv[1:] = {[str(folder), then]!r}\n"
        f"runpy.run_path({str(MADE_UP)!r}, run_name='__main__')\n"
    )
    said = sandbox.python(script, timeout_s=240).assert_success().stdout
    return [json.JSONDecoder().raw_decode(said, at.start())[0] for at in re.finditer(r"^\{", said, flags=re.M)]


def test_tuning_leaves_nothing_but_settings_that_deploy_uses(
    sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path
) -> None:
    """After one that was killed too: every trial is gone, and the deployed version was never touched.

    The candidates were really served, and answered by boxes. Whoever comes next goes on from the measurements, the
    command at last from all of them. `deploy` takes the file for this model, and would use its settings.
    """
    before, output = look(sandbox), tmp_path / "tune"
    kill_in_step(sandbox, "measure ensemble, 2 instances, batch 4, 250 us", *TUNE, "-o", output)
    assert look(sandbox).endpoints != before.endpoints
    deploy = (
        "deploy", "--project", "street-detector", "--endpoint", "tuned", "--tuned", output / "tuned.toml",
        "--image", pictures()[0], "--plan", "--json",
    )  # fmt: skip
    *seen, outcome, told, tuned, plan, made = made_up(sandbox, output, tmp_path, (*TUNE, "-o", output), deploy)
    assert look(sandbox) == before
    first = json.loads((output / "measurements.jsonl").read_text(encoding="utf-8").splitlines()[0])["measurement"]
    anew = bool(first["saturated"])  # on a busy machine: then it is measured again
    assert (outcome["proposed"], outcome["reused_measurements"]) == (PROPOSED, 1)
    assert len(seen) == 1 + 2 * 2 + anew
    served = {tuple(one["served"].values()) for one in seen}
    assert served == {("endpoint", 1, 8), ("ensemble", 2, 4)}
    assert all(one["boxes"] and f"street/{one['version']}" not in before.endpoints for one in seen)
    assert first["memory_bytes"] > 50e6  # of a load test that was a real one

    assert tuned == made == {"code": 0}
    assert (told["proposed"], told["reused_measurements"], told["passed"]) == (PROPOSED, 6, True)
    assert told["reported_to"] == deployed["deployment_task_id"]
    assert told["hardware"].keys() == {"cpu_model", "cpu_count", "gpu"}
    operations = ClearML(sandbox).operations("street")
    assert [(one["status"], one["stage"]) for one in operations if one["kind"] == "tune"] == [
        ("failed", "taken back"), ("completed", "taken back"),
    ]  # fmt: skip
    (task,) = ClearML(sandbox).tasks(id=[operations[-1]["id"]])
    assert json.loads(task["configuration"]["tuning"]["value"])["proposed"] == PROPOSED
    assert Path(told["report"]).stat().st_size > 1e6

    steps = {step["name"]: step["detail"] for step in plan["steps"]}
    assert steps["see what was tuned"] == ", ".join(f"{name} {value}" for name, value in PROPOSED.items())
    assert steps["compare its hardware with what was tuned on"].startswith("the same: ")
    assert plan["endpoint"]["version"] == "1"


def test_a_version_that_is_deployed_with_a_file_of_settings_has_them(
    sandbox: CommandLine, whole: dict[str, Any]
) -> None:
    """Placement and batching are the file's; that it was made on another GPU is said, and it goes on."""
    repository = Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"])
    path = repository / "whole_1_detector" / CONFIG_FILE
    config = parse_config(path.read_text(encoding="utf-8"), source=path)
    assert whole["placement"] == "ensemble"
    assert config.dynamic_batching.max_queue_delay_microseconds == 50
    steps = {step["name"]: step["detail"] for step in whole["steps"]}
    said = steps["compare its hardware with what was tuned on"]
    assert said.startswith("warning: tuned on other hardware: gpu Tesla T4, here ")
