"""Deploying what is deployed already: nothing changes, and what is missing is mended."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from clearml_state import ClearML, changes, everything
from command_line import CommandLine

from tao2serve.deployment.job import GIVE_WEIGHTS
from tao2serve.sandbox.samples import SAMPLE, pictures

pytestmark = pytest.mark.integration
PICTURE = pictures()[0] if pictures() else Path("missing.jpg")
UNPRUNED = next((SAMPLE / "unpruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))


def deploy(sandbox: CommandLine, *arguments: str | Path) -> dict[str, Any]:
    outcome = sandbox.tao2serve("deploy", *arguments, "--image", PICTURE, "--json")
    return outcome.assert_success().document


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """The better sample model with a spec that nobody else deploys it with: what others published is not reused."""
    return ("--project", "street-detector", "--spec", own_spec("pruned", tmp_path_factory.mktemp("pruned")))


@pytest.fixture(scope="module")
def other(sandbox: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """The other sample model as TAO leaves it in ClearML, by a path of its container, with its weights given here."""
    folder = tmp_path_factory.mktemp("unpruned")
    model_id = registered_by_path(sandbox, folder)
    return (model_id, "--weights", UNPRUNED, "--spec", own_spec("unpruned", folder))


def registered_by_path(sandbox: CommandLine, folder: Path) -> str:
    script = folder / "register.py"
    script.write_text(
        "from clearml import OutputModel, Task\n"
        "task = Task.create(project_name='elsewhere', task_name='train by path')\n"
        "model = OutputModel(task=task, name='model')\n"
        "model.update_weights(register_uri='file:///workspace/results/weights/model.hdf5')\n"
        "print(model.id)\n",
        encoding="utf-8",
    )
    return sandbox.python(script).assert_success().stdout.split()[-1]


def planned(plan: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {step["name"]: (step["would"], step["detail"]) for step in plan["steps"]}


def own_spec(run: str, folder: Path) -> Path:
    text = (SAMPLE / run / "experiment_spec.txt").read_text(encoding="utf-8")
    changed = text.replace("minimum_bounding_box_height: 4", "minimum_bounding_box_height: 3")
    assert changed != text
    path = folder / "experiment_spec.txt"
    path.write_text(changed, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def again(sandbox: CommandLine, choice: tuple[str | Path, ...]) -> dict[str, Any]:
    """The better sample model, deployed as endpoint `again`."""
    return deploy(sandbox, *choice, "--endpoint", "again")


def test_a_second_run_changes_nothing_and_is_quick(
    sandbox: CommandLine, again: dict[str, Any], choice: tuple[str | Path, ...]
) -> None:
    """Same command again: under 8 s as a whole, same version, and not one task, model, file or load more or other."""
    before = everything(sandbox)
    start = time.monotonic()
    second = deploy(sandbox, *choice, "--endpoint", "again")
    took_s = time.monotonic() - start
    assert changes(before, everything(sandbox)) == []
    assert second["changed"] is False
    assert second["endpoint"]["version"] == again["endpoint"]["version"]
    assert second["deployment_task_id"] == again["deployment_task_id"]
    assert second["artifact"] == again["artifact"]
    assert second["alias"]["before"] == second["alias"]["after"] == {again["endpoint"]["version"]: 1.0}
    assert took_s < 8, second["steps"]


def test_what_a_plan_says_is_what_happens(
    sandbox: CommandLine, again: dict[str, Any], choice: tuple[str | Path, ...], other: tuple[str | Path, ...]
) -> None:
    """--plan changes nothing, names the version, the route and the upload; the run after it does just that."""
    arguments = (*other, "--endpoint", "again", "--canary", "25")
    before = everything(sandbox)
    plan = deploy(sandbox, *arguments, "--plan")
    same = deploy(sandbox, *choice, "--endpoint", "again", "--plan")
    assert changes(before, everything(sandbox)) == []
    assert (same["outcome"], same["changes"], same["endpoint"]["version"]) == ("plan", False, "1")
    assert plan["outcome"] == "plan"
    assert plan["changes"] is True
    assert plan["artifact"]["upload_bytes"] > 100_000
    assert plan["alias"] == {"before": {"1": 1.0}, "after": {"1": 0.75, "2": 0.25}}
    done = deploy(sandbox, *arguments)
    assert done["endpoint"] == plan["endpoint"]
    assert done["alias"] == plan["alias"]
    names = [step["name"] for step in plan["steps"]]
    assert [step["name"] for step in done["steps"]] == [name for name in names if name != "look into ClearML"]
    size = f"{UNPRUNED.stat().st_size:,} bytes"
    assert planned(plan)[GIVE_WEIGHTS][0] == "do"
    assert size in planned(plan)[GIVE_WEIGHTS][1]
    assert planned(plan)["decide on the version"] == ("do", "version 2, new")


def test_a_plan_says_what_of_a_version_is_there(
    sandbox: CommandLine, again: dict[str, Any], other: tuple[str | Path, ...]
) -> None:
    """The weights are uploaded, the version is served: judged by another picture it is only asked, not loaded anew."""
    before = everything(sandbox)
    outcome = sandbox.tao2serve(
        "deploy", *other, "--endpoint", "again", "--canary", "25", "--image", pictures()[1], "--plan", "--json"
    )
    assert changes(before, everything(sandbox)) == []
    plan = planned(outcome.assert_success().document)
    uploaded = {model["id"]: model for model in ClearML(sandbox).models()}[plan[GIVE_WEIGHTS][1].split()[-1]]
    assert plan[GIVE_WEIGHTS][0] == "reuse"
    assert uploaded["uri"].endswith("/model.hdf5")
    assert plan["decide on the version"] == ("reuse", "version 2, there already: it is only judged anew")
    assert (plan["load on Triton"][0], plan["register the endpoint version"][0]) == ("nothing", "reuse")
    assert plan["switch the alias"][0] == "nothing"
    choosing = plan["choose the trained model"][1]
    assert "given for model, named by its id" in choosing
    assert "--spec has classes" not in choosing  # ClearML has no spec of that run


def test_after_another_version_the_first_one_only_gets_its_alias_back(
    sandbox: CommandLine, again: dict[str, Any], choice: tuple[str | Path, ...]
) -> None:
    """The alias is on two versions: deploying the first again changes the route, and makes no version nor upload."""
    before = everything(sandbox)
    back = deploy(sandbox, *choice, "--endpoint", "again")
    after = everything(sandbox)
    assert back["changed"] is True
    assert back["endpoint"]["version"] == again["endpoint"]["version"]
    assert back["alias"] == {"before": {"1": 0.75, "2": 0.25}, "after": {"1": 1.0}}
    assert {name: after[name] for name in ("models", "repository", "loads")} == {
        name: before[name] for name in ("models", "repository", "loads")
    }
    assert "export to ONNX" not in [step["name"] for step in back["steps"]]


def test_a_folder_that_is_gone_is_written_again_as_it_was(
    sandbox: CommandLine, again: dict[str, Any], choice: tuple[str | Path, ...]
) -> None:
    """Somebody deleted the Triton model: the same version comes back with the same bytes, under the same model."""
    folder = Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"]) / "again_1"
    was = {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.suffix in (".onnx", ".pbtxt")
    }
    models = ClearML(sandbox).models()
    shutil.rmtree(folder)
    mended = deploy(sandbox, *choice, "--endpoint", "again")
    assert mended["endpoint"]["version"] == "1"
    assert mended["artifact"]["reused"] is True
    assert {path: (folder / path).read_bytes() for path in was} == was
    assert [model["id"] for model in ClearML(sandbox).models()] == [model["id"] for model in models]


def test_a_version_that_misses_its_load_gate_goes_again(
    sandbox: CommandLine, again: dict[str, Any], other: tuple[str | Path, ...]
) -> None:
    """Exit 8 with the normal document: the alias is untouched, and nothing of the version is left."""
    repository = Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"])
    before = sorted(path.name for path in repository.iterdir()), ClearML(sandbox).configured("canary")
    outcome = sandbox.tao2serve(
        "deploy", *other, "--endpoint", "gated", "--image", PICTURE, "--slo", "p99=1ms",
        "--gate-images", PICTURE.parent, "--gate-time", "2s", "--json",
    )  # fmt: skip
    document = outcome.document
    assert outcome.code == 8
    assert document["outcome"] == "missed"
    assert document["load"]["passed"] is False
    assert document["load"]["requests"] > 5
    assert (sorted(path.name for path in repository.iterdir()), ClearML(sandbox).configured("canary")) == before
    assert "gated/1" not in ClearML(sandbox).configured("endpoints")
    (operation,) = ClearML(sandbox).operations("gated")
    assert (operation["status"], operation["stage"]) == ("failed", "taken back")


def test_clearml_shows_the_whole_deployment(sandbox: CommandLine, again: dict[str, Any], tmp_path: Path) -> None:
    """Read back by the SDK: steps on the console and as a plot, configuration, parity, lineage, the drawn picture."""
    script = tmp_path / "read_back.py"
    script.write_text(
        "import json, sys\n"
        "from clearml import Model, Task\n"
        f"task = Task.get_task({again['deployment_task_id']!r})\n"
        f"model = Model({again['artifact']['model_id']!r})\n"
        "print(json.dumps({\n"
        "    'status': str(task.get_status()), 'parent': task.parent,\n"
        "    'console': ''.join(task.get_reported_console_output(number_of_reports=100)),\n"
        "    'plots': [plot['metric'] for plot in task.get_reported_plots()],\n"
        "    'values': task.get_reported_single_values(),\n"
        "    'inputs': [found.id for found in task.models['input']],\n"
        "    'outputs': [found.id for found in task.models['output']],\n"
        "    'spec': task.get_configuration_object('experiment_spec'),\n"
        "    'params': json.loads(task.get_configuration_object('params.json')),\n"
        "    'settings': json.loads(task.get_configuration_object('endpoint.json')),\n"
        "    'images': [event['url'] for event in task.get_debug_samples('smoke request', 'boxes')],\n"
        "    'model': {'published': model.published, 'tags': list(model.tags), 'framework': model.framework,\n"
        "              'url': model.url, 'metadata': {k: v['value'] for k, v in model.get_all_metadata().items()}},\n"
        "}))\n",
        encoding="utf-8",
    )
    seen = json.loads(sandbox.python(script).assert_success().stdout.splitlines()[-1])
    assert seen["status"] == "completed"
    assert seen["parent"] == again["service_id"]
    for step in again["steps"]:
        assert f"done: {step['name']}" in seen["console"]
    assert {"step durations", "parity"} <= set(seen["plots"])
    assert seen["values"]["matched ratio"] == 1.0
    assert seen["inputs"] == [again["source"]["model_id"]]
    assert "random_seed" in seen["spec"] or "dataset_config" in seen["spec"]
    assert seen["params"]["family"] == "detectnet_v2"
    assert seen["settings"]["model"]["id"] == again["artifact"]["model_id"]
    assert len(seen["images"]) == 1
    model = seen["model"]
    assert (model["published"], model["framework"]) == (True, "ONNX")
    assert "fp32" in model["tags"]
    assert not model["url"].startswith("file:")
    metadata = model["metadata"]
    assert metadata["sha256"] == again["artifact"]["sha256"]
    assert metadata["source_model"] == again["source"]["model_id"]
    assert {"package_sha256", "source_sha256", "parity", "precision", "tao2serve", "onnx", "onnxruntime"} <= set(
        metadata
    )
