"""Operations that others interfere with, on a real server. Prints what became of them as JSON."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearml import Task
from clearml.backend_api.session.client import APIClient
from clearml_serving.serving.endpoints import CanaryEP
from clearml_serving.serving.model_request_processor import ModelRequestProcessor

from tao2serve.config import Settings
from tao2serve.deployment.site import Site, open_site
from tao2serve.errors import Tao2ServeError
from tao2serve.identity import holder
from tao2serve.registry import operation as subject
from tao2serve.registry import operations
from tao2serve.registry.operation import Operation
from tao2serve.serving.promotion import promote, rollback
from tao2serve.serving.service import EndpointVersion, ServingService, find_service
from tao2serve.steps import Steps
from tao2serve.values import ModelSignature, Tensor

PROJECT = "Contract operations"
api = APIClient()
code = Path(sys.argv[1]) / "code"
code.mkdir()
(code / "__init__.py").write_text("class Preprocess:\n    pass\n")
signature = ModelSignature(
    input=Tensor(name="i", datatype="FP32", shape=(3, 64, 96)),
    coverage=Tensor(name="c", datatype="FP32", shape=(1, 4, 6)),
    bbox=Tensor(name="b", datatype="FP32", shape=(4, 4, 6)),
)
service_id = str(ModelRequestProcessor(force_create=True, name="interfered", project=PROJECT).get_id())
service = ServingService(service_id)
settings = Settings(service=service_id, serving_base_url="http://x/serve", artifact_project=PROJECT)
seen: dict[str, Any] = {}


def refused(change: Any) -> list[Any]:
    """Exit code and words of the error, [0] if there is none."""
    try:
        change()
    except Tao2ServeError as error:
        return [error.exit_code, f"{error.subject} {error.fact} {error.evidence}"]
    return [0]


def status(task_id: str) -> str:
    return str(api.tasks.get_by_id(task=task_id).status)


def register(name: str, version: int) -> None:
    endpoint = EndpointVersion(name=name, version=version, base_url="http://x/serve")
    service.register(endpoint, model_id="", signature=signature, preprocess_code=code)


def operating(kind: str) -> Operation:
    return Operation(kind, endpoint="street", service_id=service_id, project=PROJECT)


for number in (1, 2):
    register("street", number)
service.route("street", {1: 1})

# Somebody took it for dead, and it was not.
with operating("promote") as buried:
    service.turn = buried.turn
    seen["alone"] = refused(buried.require_running)
    api.tasks.failed(task=buried.id, force=True, status_reason="gone")
    seen["buried"] = [refused(lambda: service.route("street", {2: 1})), refused(buried.require_running)]
    seen["route_after"] = service.state().weights("street")
service.turn = ServingService(service_id).turn
seen["ended"] = status(buried.id)

# What it uploads at its end takes long.
subject.BEAT_S = 0.1  # type: ignore[misc]
signs: list[Any] = []
with operating("deploy") as slow:
    flush = slow.task.flush

    def take_long(**options: Any) -> Any:
        signs.append(api.tasks.get_by_id(task=slow.id).last_update)
        time.sleep(0.8)
        signs.append(api.tasks.get_by_id(task=slow.id).last_update)
        return flush(**options)

    slow.task.flush = take_long
seen["signs_while_uploading"] = signs[0] < signs[1]

# Another operation is at work: on this machine; on another one; on another one, and silent for too long.
site = Site(name="street", base_url="http://x/serve", service=service, host=None)  # type: ignore[arg-type]
with operating("rollback") as running:
    seen["alone_beside"] = [refused(site.require_alone)]
    elsewhere = replace(holder(), place="elsewhere")
    running.note(holder=json.dumps({name: getattr(elsewhere, name) for name in elsewhere.__dataclass_fields__}))
    seen["alone_beside"].append(refused(site.require_alone))
    operations.SILENCE_S = -5.0  # type: ignore[misc]
    seen["alone_beside"].append(refused(site.require_alone))
    operations.SILENCE_S = 60.0  # type: ignore[misc]
seen["alone_after"] = refused(site.require_alone)

# Names that somebody else uses.
foreign = ModelRequestProcessor(task_id=service_id)
foreign.deserialize(skip_sync=True)
foreign.add_canary_endpoint(CanaryEP(endpoint="cars", weights=[1.0], load_endpoints=["street/1"]))
foreign.serialize()
register("cars", 1)
before = service.state().routes["cars"]
seen["foreign"] = {
    "deploy": refused(lambda: open_site("cars", settings, ExitStack())),
    "promote": refused(lambda: promote("cars", 1, None, settings, steps=Steps())),
    "rollback": refused(lambda: rollback("cars", settings, steps=Steps())),
    "route": refused(lambda: service.route("cars", {1: 1})),
}
seen["foreign_stays"] = service.state().routes["cars"] == before
seen["operations_on_it"] = len(operations.list_operations(service_id, endpoint="cars"))

# What is no serving service, or runs no more, is neither taken nor started.
training = Task.create(project_name=PROJECT, task_name="training", task_type="training")
training.mark_started()
training.mark_completed()
seen["training"] = [*refused(lambda: find_service(training.id)), status(training.id)]
seen["found"] = find_service(service_id).id == service_id
api.tasks.stopped(task=service_id, force=True)
seen["stopped"] = [*refused(lambda: find_service(service_id)), status(service_id)]
print(json.dumps(seen))
