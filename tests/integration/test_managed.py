"""Deploying to a Triton that ClearML Serving's own controller runs: what is published loads there as it is."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest
from bad_bodies import refused
from command_line import CommandLine, processes_of

from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.serving.auxiliary import MODEL_PARAMETER
from tao2serve.triton.config import parse_config

pytestmark = pytest.mark.integration
PICTURE: Final = pictures()[0] if pictures() else Path("missing.jpg")
WEIGHTS: Final = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"))
# One of each kind; all of them, on a Triton of ours: test_bad_bodies.py.
BODIES: Final = ("svg", "bomb bmp", "no image", "http url", "wrong base64", "broken json", "gzip of text")


def downloads(sandbox: CommandLine) -> Path:
    """The model repository that the controller fills."""
    return Path(sandbox.environment["TAO2SERVE_HOME"]) / "sandbox" / "triton-controller" / "models"


def post(url: str, body: bytes, media_type: str = "image/jpeg") -> httpx.Response:
    return httpx.post(url, content=body, headers={"Content-Type": media_type}, timeout=30, trust_env=False)


def test_the_sandbox_says_who_owns_triton(managed_sandbox: CommandLine) -> None:
    """`status` names the controller and the Triton it started, `env` tells `deploy`; all listen on loopback only."""
    document = managed_sandbox.tao2serve("sandbox", "status", "--json").assert_success().document
    assert document["managed"] is True
    names = {entry["name"] for entry in document["processes"] if entry["alive"]}
    assert names == {"clearml-server", "clearml-serving", "triton-controller", "triton"}
    assert managed_sandbox.environment["TAO2SERVE_MANAGED"] == "true"
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in processes_of(Path(managed_sandbox.environment["TAO2SERVE_HOME"]))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_deploy_leaves_loading_to_the_controller(managed_sandbox: CommandLine, managed: dict[str, Any]) -> None:
    """Registered first, then waited for, in the controller's rhythm; our own model repository is not touched."""
    steps = {step["name"]: step["detail"] for step in managed["steps"]}
    names = list(steps)
    waiting = "wait for the controller to load it on Triton"
    assert "load on Triton" not in steps
    assert names.index("register the endpoint version") < names.index(waiting) < names.index("switch the alias")
    assert "the controller looks every 1 s" in steps[waiting]
    assert managed["parity"]["matched_ratio"] == 1.0
    assert managed["parity"]["boxes_expected"] > 0
    assert not Path(managed_sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"]).exists()


def test_the_controller_wrote_the_configuration_that_we_would(
    managed_sandbox: CommandLine, managed: dict[str, Any], tmp_path: Path
) -> None:
    """Its config.pbtxt is that of `build` in meaning, field by field, but for the published model's id."""
    ours_at = tmp_path / "ours"
    managed_sandbox.tao2serve("build", WEIGHTS, "--name", "ours", "--repository", tmp_path).assert_success()
    theirs_at = downloads(managed_sandbox) / f"street_{managed['endpoint']['version']}"
    ours, theirs = (
        parse_config((folder / "config.pbtxt").read_text(encoding="utf-8"), source=folder)
        for folder in (ours_at, theirs_at)
    )
    assert theirs.parameters.pop(MODEL_PARAMETER).string_value == managed["artifact"]["model_id"]
    ours.name = theirs.name
    for field in ours.DESCRIPTOR.fields:
        assert getattr(theirs, field.name) == getattr(ours, field.name), field.name
    for name in ("model.onnx", "model.py"):
        assert (theirs_at / "1" / name).read_bytes() == (ours_at / "1" / name).read_bytes()


def test_status_asks_the_triton_of_the_controller(managed_sandbox: CommandLine, managed: dict[str, Any]) -> None:
    """Readiness and traffic as of a Triton of ours; a repository, which is the controller's, is neither shown nor
    missed. A Triton that cannot be reached is away, and said to be."""
    document = managed_sandbox.tao2serve("status", "street", "--json").assert_success().document
    assert document["triton"] == {
        "address": managed_sandbox.environment["TAO2SERVE_TRITON_GRPC"], "reachable": True, "problem": "",
        "managed": True,
    }  # fmt: skip
    assert document["model_repository"] is None
    version = document["endpoints"][0]["versions"][0]
    assert version["source_model_id"] == managed["source"]["model_id"]
    seen = version["triton"]
    assert (seen["model"], seen["ready"]) == (f"street_{version['version']}", True)
    assert seen["requests_since_load"] > 0
    assert seen["last_request"]
    post(managed["endpoint"]["url"], PICTURE.read_bytes())
    later = managed_sandbox.tao2serve("status", "street", "--json").document["endpoints"][0]["versions"][0]["triton"]
    assert later["requests_since_load"] > seen["requests_since_load"]
    assert not {"server-away", "orphan", "stranger", "version-not-ready"} & {note["kind"] for note in document["notes"]}
    page = managed_sandbox.tao2serve("status", "street").assert_success().stdout
    assert "answers; ClearML Serving's own controller runs it" in page
    assert "repository" not in page
    assert "?" not in page
    environment = {**managed_sandbox.environment, "TAO2SERVE_TRITON_GRPC": "127.0.0.1:9"}
    astray = CommandLine(environment=environment, folder=managed_sandbox.folder)
    blind = astray.tao2serve("status", "street", "--json").assert_success().document
    assert blind["triton"]["reachable"] is False
    assert blind["endpoints"][0]["versions"][0]["triton"]["ready"] is None
    assert "server-away" in {note["kind"] for note in blind["notes"]}


def test_stock_clearml_serving_shows_the_auxiliary_configuration(
    managed_sandbox: CommandLine, managed: dict[str, Any]
) -> None:
    """`clearml-serving model list` lists the version with what the controller writes from, and the alias."""
    listing = managed_sandbox.clearml_serving("model", "list").assert_success().stdout
    assert f"street/{managed['endpoint']['version']}" in listing
    assert '"auxiliary_cfg"' in listing
    assert '"load_endpoints"' in listing


def test_verify_compares_the_endpoint_with_its_weights(managed_sandbox: CommandLine, managed: dict[str, Any]) -> None:
    """Every box of every sample picture comes back from the Triton of the controller."""
    outcome = managed_sandbox.tao2serve("verify", WEIGHTS, "street", "--images", PICTURE.parent, "--json")
    document = outcome.assert_success().document
    assert (document["outcome"], document["candidate"]["kind"]) == ("ok", "endpoint")


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_are_refused(managed: dict[str, Any], name: str) -> None:
    """A 4xx with a sentence, and the next picture is answered."""
    body = {each.name: each for each in refused(PICTURE.read_bytes(), url="http://127.0.0.1:9/x.jpg")}[name]
    headers = {"Content-Type": body.media_type} | ({"Content-Encoding": body.encoding} if body.encoding else {})
    url = managed["endpoint"]["url"]
    refusal = httpx.post(url, content=body.content, headers=headers, timeout=30, trust_env=False)
    assert refusal.status_code in body.statuses, refusal.text
    assert refusal.json()["detail"]
    assert post(url, PICTURE.read_bytes()).json()["predictions"]


def test_an_ensemble_is_refused_before_anything_is_built(managed_sandbox: CommandLine) -> None:
    """Exit 2 with the reason, and no step was begun."""
    outcome = managed_sandbox.tao2serve("deploy", WEIGHTS, "--endpoint", "odd", "--placement", "ensemble", "--json")
    assert outcome.code == 2
    assert "four Triton models" in outcome.document["error"]["evidence"]
    assert not outcome.document.get("step")


def test_versions_go_forth_and_back(managed_sandbox: CommandLine, managed: dict[str, Any]) -> None:
    """The same again changes nothing; anew it is the next version; rollback, promote and undeploy do as they do on a
    Triton of ours, and leave loading to the controller, also where nothing but the version says that there is one."""
    plain = CommandLine(
        environment={**managed_sandbox.environment, "TAO2SERVE_MANAGED": "false"}, folder=managed_sandbox.folder
    )
    again = ("deploy", "--project", "street-detector", "--endpoint", "street", "--image", PICTURE, "--json")
    assert managed_sandbox.tao2serve(*again).assert_success().document["changed"] is False
    # The same content, from a file: the package is there, and the version came from no model of ClearML's.
    anew = ("deploy", WEIGHTS, *again[3:], "--force")
    first, made = managed["endpoint"], managed_sandbox.tao2serve(*anew).assert_success().document
    second = made["endpoint"]
    assert made["artifact"]["model_id"] == managed["artifact"]["model_id"]
    assert int(second["version"]) > int(first["version"])

    def answering() -> str:
        return str(post(second["alias_url"], PICTURE.read_bytes()).json()["model"]["version"])

    assert answering() == second["version"]
    assert post(first["url"], PICTURE.read_bytes()).json()["model"]["version"] == first["version"]
    (endpoint,) = managed_sandbox.tao2serve("status", "street", "--json").assert_success().document["endpoints"]
    sources = {version["version"]: version["source_model_id"] for version in endpoint["versions"]}
    assert sources == {first["version"]: managed["source"]["model_id"], second["version"]: None}
    plain.tao2serve("rollback", "street", "--json").assert_success()
    assert answering() == first["version"]
    managed_sandbox.tao2serve("promote", "street", second["version"], "--json").assert_success()
    assert answering() == second["version"]
    plain.tao2serve("promote", "street", first["version"], "--json").assert_success()
    assert answering() == first["version"]  # which other tests ask
    gone = plain.tao2serve("undeploy", "street", "--old", "--json").assert_success().document
    assert (gone["removed"]["versions"], gone["removed"]["triton_models"]) == ([second["version"]], [])
    assert any("controller owns it" in reason for reason in gone["left"])
    assert post(second["url"], PICTURE.read_bytes()).status_code == 404
    assert answering() == first["version"]
    shown = plain.tao2serve("status", "street", "--json").assert_success().document
    assert "orphan" not in {note["kind"] for note in shown["notes"]}
    (endpoint,) = shown["endpoints"]
    assert [str(version["version"]) for version in endpoint["versions"]] == [first["version"]]


def test_a_step_that_fails_late_takes_the_registration_back(managed_sandbox: CommandLine) -> None:
    """When the endpoint does not answer in time (exit 6), it is registered no more."""
    impatient = CommandLine(
        environment={**managed_sandbox.environment, "TAO2SERVE_SERVING_BASE_URL": "http://127.0.0.1:9/serve",
                     "TAO2SERVE_READY_TIMEOUT_S": "1"},
        folder=managed_sandbox.folder,
    )  # fmt: skip
    outcome = impatient.tao2serve("deploy", WEIGHTS, "--endpoint", "late", "--json")
    assert outcome.code == 6
    assert "late/1" not in managed_sandbox.clearml_serving("model", "list").assert_success().stdout


HOPELESS = """
import json, os, time
from pathlib import Path
from clearml import OutputModel, Task
from tao2serve.config import load_settings
from tao2serve.errors import ServiceError
from tao2serve.registry.publish import PublishedModel
from tao2serve.serving.auxiliary import auxiliary_config
from tao2serve.serving.controllers import find_controllers
from tao2serve.serving.managed import wait_until_loaded
from tao2serve.serving.service import EndpointVersion, find_service
from tao2serve.triton.config import ModelConfig
from tao2serve.triton.control import TritonControl
from tao2serve.values import ModelSignature, Tensor

inputs, coverage, bbox = (Tensor(name=name, datatype="FP32", shape=(3, 16, 16)) for name in ("i", "c", "b"))
code = Path("code")
code.mkdir()
(code / "__init__.py").write_text("class Preprocess: pass")
package = Path("package")
package.mkdir()
(package / "model.py").write_text("raise RuntimeError('no such network')")
service, task = find_service(), Task.create(project_name="elsewhere", task_name="hopeless")
seen = {}
for name in ("lost", "broken"):
    model = OutputModel(task=task, name=name, framework="ONNX")
    files = os.environ["CLEARML_FILES_HOST"]
    if name == "lost":
        model.update_weights(register_uri=files + "/nothing/here.zip")
    else:
        model.update_weights_package(
            weights_path=str(package), auto_delete_file=False, upload_uri=files, async_enable=False
        )
    endpoint = EndpointVersion(name=name, version=1, base_url="")
    config = ModelConfig(name=endpoint.triton_model, backend="python", inputs=(inputs,), outputs=(coverage, bbox))
    service.register(
        endpoint, model_id=model.id, preprocess_code=code, auxiliary=auxiliary_config(config, model_id=model.id),
        signature=ModelSignature(input=inputs, coverage=coverage, bbox=bbox),
    )
    try:
        with TritonControl(os.environ["TAO2SERVE_TRITON_GRPC"]) as control:
            published = PublishedModel(model_id=model.id, uri=model.url)
            wait_until_loaded(service.id, control, endpoint, published, load_settings(), on_news=lambda _: None)
    except ServiceError as error:
        seen[name] = f"{error.fact}: {error.evidence}"
    service.unregister(endpoint)
(controller,) = find_controllers(service.id)
deadline = time.monotonic() + 30
while "metrics" not in seen and time.monotonic() < deadline:
    scalars = Task.get_task(controller.task_id).get_reported_scalars()
    if "nv_inference_request_success" in scalars:
        seen["metrics"] = " ".join(scalars["nv_inference_request_success"])
    time.sleep(0.5)
print(json.dumps(seen))
"""


def test_a_model_that_never_will_load_ends_the_wait_with_the_reason(
    managed_sandbox: CommandLine, managed: dict[str, Any], tmp_path: Path
) -> None:
    """One that cannot be downloaded and one that Triton refuses: exit 5 long before the patience ends; others serve."""
    script = tmp_path / "hopeless.py"
    script.write_text(HOPELESS, encoding="utf-8")
    # The SDK leaves its packages behind in the temporary folder.
    inside = CommandLine(environment={**managed_sandbox.environment, "TMPDIR": str(tmp_path)}, folder=tmp_path)
    before = time.monotonic()
    outcome = inside.python(script).assert_success()
    assert time.monotonic() - before < 60
    seen = json.loads(outcome.stdout.splitlines()[-1])
    assert "could not be downloaded" in seen["lost"]
    assert "no such network" in seen["broken"]
    # What Triton counts of each model reaches the task of the one controller that runs.
    assert f"street_{managed['endpoint']['version']}.v1" in seen["metrics"].split()
    assert post(managed["endpoint"]["url"], PICTURE.read_bytes()).status_code == 200


def test_a_killed_controller_leaves_triton_serving_and_up_brings_it_back(
    managed_sandbox: CommandLine, managed: dict[str, Any]
) -> None:
    """`status` exits 6 and what is live stays live; `up` needs no flag, and the endpoint answers as before."""
    (record,) = (
        entry
        for entry in managed_sandbox.tao2serve("sandbox", "status", "--json").document["processes"]
        if entry["name"] == "triton-controller"
    )
    os.kill(record["pid"], signal.SIGKILL)
    assert managed_sandbox.tao2serve("sandbox", "status").code == 6
    before = post(managed["endpoint"]["url"], PICTURE.read_bytes()).json()["predictions"]
    assert before
    document = managed_sandbox.tao2serve("sandbox", "up", "--json").assert_success().document
    assert document["managed"] is True
    assert post(managed["endpoint"]["url"], PICTURE.read_bytes()).json()["predictions"] == before
    assert [
        path.name for path in downloads(managed_sandbox).iterdir() if path.name.startswith(("lost", "broken"))
    ] == []
