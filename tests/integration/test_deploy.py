"""deploy, predict and loadtest as a user runs them, against the sandbox."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import CommandLine
from PIL import Image

from tao2serve.sandbox.samples import SAMPLE, pictures

pytestmark = pytest.mark.integration
PICTURE = pictures()[0] if pictures() else Path("missing.jpg")
PRUNED = SAMPLE / "pruned"


def test_models_names_the_best_and_why(sandbox: CommandLine) -> None:
    """Both sample runs are listed; exactly one is best, the one with the higher mAP, and the reason says so."""
    document = sandbox.tao2serve("models", "--project", "street-detector", "--json").assert_success().document
    models = document["models"]
    assert {model["pruned"] for model in models} == {True, False}
    best = [model for model in models if model["best"]]
    assert len(best) == 1
    assert best[0]["mean_average_precision"] == max(model["mean_average_precision"] for model in models)
    assert f"{best[0]['mean_average_precision']:.4f}" in document["reason"]
    assert all(model["fetchable"] and model["task_id"] and model["epoch"] for model in models)


def test_deploy_reports_every_step(deployed: dict[str, Any]) -> None:
    """The document names the endpoint version, the source with its reason, and all steps with their times."""
    assert deployed["outcome"] == "ok"
    assert deployed["endpoint"]["url"].endswith(f"/serve/street/{deployed['endpoint']['version']}")
    assert "mean average precision" in deployed["source"]["reason"]
    assert deployed["parity"]["matched_ratio"] == 1.0
    assert deployed["parity"]["boxes_expected"] > 0
    names = [step["name"] for step in deployed["steps"]]
    assert names[0] == "choose the trained model"
    assert names[-1] == "switch the alias"


def test_stock_clearml_serving_shows_the_endpoint(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """`clearml-serving model list` lists the version, and the alias as a canary."""
    listing = sandbox.clearml_serving("model", "list").assert_success().stdout
    assert f"street/{deployed['endpoint']['version']}" in listing
    assert '"load_endpoints"' in listing
    assert deployed["artifact"]["model_id"] in listing


def test_predict_draws_the_boxes(sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path) -> None:
    """`predict -o` saves a picture of the original size; --json holds the endpoint's own answer."""
    outcome = sandbox.tao2serve("predict", "street", PICTURE, "-o", tmp_path / "drawn", "--json").assert_success()
    (result,) = outcome.document["results"]
    assert result["predictions"]
    with Image.open(result["drawing"]) as drawing, Image.open(PICTURE) as original:
        assert drawing.size == original.size
        assert drawing.convert("RGB").tobytes() != original.convert("RGB").tobytes()


def test_predict_goes_on_after_a_picture_that_is_refused(
    sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path
) -> None:
    """Exit 3 naming the file, with the results of the others; the user's own pictures are left as they are."""
    (tmp_path / "notes.jpg").write_text("not a picture")
    own = tmp_path / "street-detections.png"
    with Image.open(PICTURE) as picture:
        picture.save(own)
    before = own.read_bytes()
    shutil.copy(PICTURE, tmp_path / "street.jpg")
    outcome = sandbox.tao2serve(
        "predict", "street", tmp_path / "notes.jpg", tmp_path / "street.jpg", own, "-o", tmp_path / "out", "--json"
    )
    assert outcome.code == 3
    assert "notes.jpg" in outcome.document["error"]["subject"]
    drawn = [result["drawing"] for result in outcome.document["results"]]
    assert drawn[0] is None
    assert len({*drawn[1:], str(own)}) == 3
    assert own.read_bytes() == before


def test_a_service_that_does_not_exist_is_wrong_usage(sandbox: CommandLine) -> None:
    """Exit 2, with those that run."""
    outcome = sandbox.tao2serve("predict", "street", PICTURE, "--service", "0" * 32, "--json")
    assert outcome.code == 2
    assert sandbox.environment["CLEARML_SERVING_TASK_ID"] in outcome.document["error"]["evidence"]


def test_a_repository_that_is_not_there_is_said_before_anything_is_built(sandbox: CommandLine, tmp_path: Path) -> None:
    """Exit 2, and the folder is not made."""
    odd = CommandLine(
        environment={**sandbox.environment, "TAO2SERVE_MODEL_REPOSITORY": str(tmp_path / "none")}, folder=sandbox.folder
    )
    outcome = odd.tao2serve("deploy", "--project", "street-detector", "--endpoint", "odd", "--json")
    assert outcome.code == 2
    assert outcome.document["step"] == "find the serving service"
    assert not (tmp_path / "none").exists()


def test_predict_names_what_is_registered(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """A name that is not there exits 3 and lists those that are."""
    outcome = sandbox.tao2serve("predict", "road", PICTURE, "--json")
    assert outcome.code == 3
    assert "street" in outcome.document["error"]["evidence"]


def test_an_id_that_does_not_exist_exits_3(sandbox: CommandLine) -> None:
    """Neither a file nor anything ClearML knows: bad input, and where to look."""
    outcome = sandbox.tao2serve("deploy", "0123456789abcdef0123456789abcdef", "--endpoint", "nothing", "--json")
    assert outcome.code == 3
    assert "tao2serve models" in outcome.document["error"]["hint"]


def test_loadtest_measures_and_judges(sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path) -> None:
    """A gate within reach passes, one out of reach exits 8 with the normal document; the report is there.

    On a machine that is too busy to generate the load no gate passes, and the document says why.
    """
    arguments = ("street", "--images", PICTURE.parent, "--run-time", "3s", "--warmup", "1s", "--users", "2")
    outcome = sandbox.tao2serve(
        "loadtest", *arguments, "--slo", "p99=1ms", "--slo", "failure-ratio=0", "-o", tmp_path, "--json"
    )
    document = outcome.document
    assert outcome.code == 8
    assert document["passed"] is False
    missed, reached = document["slo"]
    assert (missed["passed"], missed["missed_by"]["absolute"] > 0) == (False, True)
    assert (reached["passed"], reached["missed_by"]) == (not document["client"]["saturated"], None)
    assert any(reason.startswith("p99=1ms was missed by") for reason in document["reasons"])
    assert document["requests"] > 10
    assert document["failures"] == 0
    assert document["latency_ms"]["p50"] <= document["latency_ms"]["p99"] <= document["latency_ms"]["max"]
    assert "<html" in Path(document["report"]).read_text(encoding="utf-8")
    assert document["reported_to"] == deployed["deployment_task_id"]
    assert document["environment"]["precision"] == "fp32"


def test_a_second_version_takes_over_the_alias(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """Deploying another file as the same endpoint makes the next version; it takes the alias, the old one stays.

    In the end the alias goes back: others hold this endpoint against the first version.
    """
    weights = next((SAMPLE / "unpruned" / "weights").glob("*.hdf5"))
    outcome = sandbox.tao2serve("deploy", weights, "--endpoint", "street", "--image", PICTURE, "--json")
    second = outcome.assert_success().document["endpoint"]
    assert int(second["version"]) > int(deployed["endpoint"]["version"])
    for url, version in (
        (second["alias_url"], second["version"]),
        (deployed["endpoint"]["url"], deployed["endpoint"]["version"]),
    ):
        answer = httpx.post(url, content=PICTURE.read_bytes(), headers={"Content-Type": "image/jpeg"}, trust_env=False)
        assert answer.json()["model"]["version"] == version
    sandbox.tao2serve("rollback", "street").assert_success()


def test_a_model_that_does_not_fit_its_spec_changes_nothing(
    sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path
) -> None:
    """A spec of other classes exits 3 naming both sides, and leaves endpoints and repository as they were."""
    weights = next((PRUNED / "weights").glob("*.hdf5"))
    spec = tmp_path / "experiment_spec.txt"
    text = (PRUNED / "experiment_spec.txt").read_text(encoding="utf-8")
    spec.write_text(text.replace("output_image_width: ", "output_image_width: 1"), encoding="utf-8")
    repository = Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"])
    before = sorted(path.name for path in repository.iterdir()), sandbox.clearml_serving("model", "list").stdout
    outcome = sandbox.tao2serve("deploy", weights, "--spec", spec, "--endpoint", "street", "--json")
    assert outcome.code == 3
    assert outcome.document["step"] == "export to ONNX"
    assert "the model has" in outcome.document["error"]["evidence"]
    after = sorted(path.name for path in repository.iterdir()), sandbox.clearml_serving("model", "list").stdout
    assert after == before


def test_a_picture_that_is_none_is_refused_before_anything_is_built(sandbox: CommandLine, tmp_path: Path) -> None:
    """`--image` with a text file: exit 3, in the step before publishing."""
    (tmp_path / "notes.jpg").write_text("not a picture")
    outcome = sandbox.tao2serve(
        "deploy", "--project", "street-detector", "--endpoint", "odd", "--image", tmp_path / "notes.jpg", "--json"
    )
    assert outcome.code == 3
    assert outcome.document["step"] == "look at the picture here"


def test_a_step_that_fails_late_is_undone(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """When the endpoint does not answer in time (exit 6), its Triton model and its registration are gone again."""
    repository = Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"])
    before = sorted(path.name for path in repository.iterdir())
    impatient = CommandLine(
        environment={**sandbox.environment, "TAO2SERVE_SERVING_BASE_URL": "http://127.0.0.1:9/serve",
                     "TAO2SERVE_READY_TIMEOUT_S": "2"},
        folder=sandbox.folder,
    )  # fmt: skip
    outcome = impatient.tao2serve("deploy", "--project", "street-detector", "--endpoint", "late", "--json")
    assert outcome.code == 6
    assert "cannot be reached" in outcome.document["error"]["evidence"]
    assert sorted(path.name for path in repository.iterdir()) == before
    assert "late/1" not in sandbox.clearml_serving("model", "list").assert_success().stdout


def test_weights_that_were_never_uploaded_exit_3_with_both_remedies(sandbox: CommandLine, tmp_path: Path) -> None:
    """A model known only by a path of its training container names the two ways out."""
    script = tmp_path / "register.py"
    script.write_text(
        "from clearml import OutputModel, Task\n"
        "task = Task.create(project_name='elsewhere', task_name='train')\n"
        "model = OutputModel(task=task, name='model')\n"
        "model.update_weights(register_uri='file:///workspace/results/weights/model.hdf5')\n"
        "print(model.id)\n",
        encoding="utf-8",
    )
    model_id = sandbox.python(script).assert_success().stdout.split()[-1]
    outcome = sandbox.tao2serve("deploy", model_id, "--endpoint", "gone", "--json")
    assert outcome.code == 3
    hint = outcome.document["error"]["hint"]
    assert "CLEARML_DEFAULT_OUTPUT_URI" in hint
    assert "--weights" in hint


def test_export_equals_what_was_deployed(sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path) -> None:
    """`export` of the same model gives the same bytes, writes params.json, and does not replace other content."""
    model_id = deployed["source"]["model_id"]
    outcome = sandbox.tao2serve("export", model_id, "-o", tmp_path, "--uint8-input", "--json").assert_success()
    artifact, _ = outcome.document["artifacts"]  # the one to serve, and TAO's graph
    assert artifact["sha256"] == deployed["artifact"]["sha256"]
    assert json.loads(Path(artifact["params"]).read_text())["family"] == "detectnet_v2"
    again = sandbox.tao2serve("export", artifact["path"], "-o", tmp_path, "--json").assert_success()
    assert again.document["artifacts"][0]["sha256"] == artifact["sha256"]
    shutil.copy(artifact["params"], artifact["path"])
    refused = sandbox.tao2serve("export", model_id, "-o", tmp_path, "--uint8-input")
    assert refused.code == 2
    assert "--force" in refused.stderr


def test_the_server_knew_every_call(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """Nothing the real SDK and the real clearml-serving asked for was unknown to the sandbox's server."""
    url = sandbox.environment["CLEARML_API_HOST"] + "/_control/unhandled"
    keys = (sandbox.environment["CLEARML_API_ACCESS_KEY"], sandbox.environment["CLEARML_API_SECRET_KEY"])
    document = httpx.get(url, auth=keys, trust_env=False).json()
    assert document["count"] == 0, document


def test_credentials_are_nowhere_to_be_read(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """No log, model, package or document of a run holds the sandbox's secret; only its credentials file does."""
    secret = sandbox.environment["CLEARML_API_SECRET_KEY"].encode()
    assert secret not in json.dumps(deployed).encode()
    home = Path(sandbox.environment["TAO2SERVE_HOME"])
    holders = [path for path in home.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert holders == [home / "sandbox" / "credentials.json"]
    assert holders[0].stat().st_mode & 0o077 == 0
