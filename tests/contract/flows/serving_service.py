"""Changes a serving service through tao2serve, while others write too. Prints what every reader could have seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from clearml.storage.helper import StorageHelper
from clearml_serving.serving.endpoints import CanaryEP
from clearml_serving.serving.model_request_processor import ModelRequestProcessor

from tao2serve.errors import ServiceError
from tao2serve.registry.publish import is_whole
from tao2serve.serving.instances import Instances
from tao2serve.serving.service import EndpointVersion, ServingService
from tao2serve.values import ModelSignature, Tensor

folder = Path(sys.argv[1])
(folder / "code").mkdir()
(folder / "code" / "__init__.py").write_text("class Preprocess:\n    pass\n")
signature = ModelSignature(
    input=Tensor(name="i", datatype="FP32", shape=(3, 64, 96)),
    coverage=Tensor(name="c", datatype="FP32", shape=(1, 4, 6)),
    bbox=Tensor(name="b", datatype="FP32", shape=(4, 4, 6)),
)
service_id = str(ModelRequestProcessor(force_create=True, name="rollout", project="Contract serving").get_id())
service = ServingService(service_id)
moments: list[dict[str, Any]] = []
write = service._task.set_configuration_object


def watched_write(*arguments: Any, **options: Any) -> Any:
    """Write one configuration object, and look at all of them as an inference instance might at this moment."""
    result = write(*arguments, **options)
    state = service.state()
    moments.append({"frozen": state.frozen_by(), "routes": {name: state.weights(name) for name in state.routes}})
    return result


service._task.set_configuration_object = watched_write


def refused(change: Any) -> str:
    try:
        change()
    except ServiceError as error:
        return f"{error.fact} {error.evidence}"
    return ""


def foreign(change: Any) -> None:
    """Another program: it reads all, changes its own part, and writes all."""
    other = ModelRequestProcessor(task_id=service_id)
    other.deserialize(skip_sync=True)
    change(other)
    other.serialize()


def version(number: int) -> EndpointVersion:
    return EndpointVersion(name="street", version=number, base_url="http://x/serve")


seen: dict[str, Any] = {"service": service_id}
for number in (1, 2, 3):
    service.register(version(number), model_id="", signature=signature, preprocess_code=folder / "code")
service.route("street", {1: 1})
# Its code is gone from the storage: registering it again uploads it anew, and only then.
code = service.code_url(version(2))
StorageHelper.get(code).delete(code)
seen["code"] = [is_whole(service.code_url(version(number))) for number in (1, 2)]
for number in (1, 2):
    before = len(moments)
    service.register(version(number), model_id="", signature=signature, preprocess_code=folder / "code")
    seen["code"] += [is_whole(service.code_url(version(number))), len(moments) > before]
written = len(moments)
service.route("street", {1: 5})
seen["writes_of_no_change"] = len(moments) - written
service.route("street", {1: 9, 2: 1})
seen["weights"] = service.state().weights("street")
seen["routed"] = refused(lambda: service.unregister_all("street", (1, 3)))
seen["registered_after_refusal"] = service.state().versions("street")

# A foreign alias whose share would be divided by nothing once version 3 is gone.
zero = CanaryEP(endpoint="cars", weights=[0.0, 1.0], load_endpoints=["street/2", "street/3"])
foreign(lambda other: other.add_canary_endpoint(zero))
seen["freezing"] = refused(lambda: service.unregister_all("street", (3,)))
foreign(lambda other: other.remove_canary_endpoint("cars"))

# Somebody who read before us writes after us: once, and then each time.
original_write = service._write
stale: list[Any] = []


def overwritten(times: int) -> None:
    other = ModelRequestProcessor(task_id=service_id)
    other.deserialize(skip_sync=True)
    left = [times]

    def write_and_lose() -> None:
        original_write()
        if left[0] > 0:
            left[0] -= 1
            other.serialize()

    service._write = write_and_lose  # type: ignore[method-assign]


overwritten(1)
service.route("street", {2: 1})
seen["after_one"] = service.state().weights("street")
overwritten(99)
seen["after_many"] = refused(lambda: service.route("street", {3: 1}))
service._write = original_write  # type: ignore[method-assign]

service.unregister_all("street", (1,))
service.drop_route("street")
service.drop_route("street")
service.unregister_all("street", (1, 2, 3))
seen["end"] = [service.state().names(), service.next_version("street")]
seen["frozen_moments"] = [moment for moment in moments if moment["frozen"]]
seen["moments"] = len(moments)
# From the first route on to its removal, the alias always led somewhere.
led = [bool(moment["routes"].get("street")) for moment in moments]
first, last = led.index(True), len(led) - led[::-1].index(True)
seen["always_led_somewhere"] = all(led[first:last])
seen["instances"] = len(Instances(service_id).read())
print(json.dumps(seen))
