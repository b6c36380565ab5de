"""A load test told to the task of its deployment, after that has ended. Prints what is found there, as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from clearml import StorageManager, Task
from clearml_serving.serving.model_request_processor import ModelRequestProcessor

from tao2serve.deployment.load_report import find_deployment, report_load
from tao2serve.loadtest import OpenLoop, evaluate, parse_gate, write_report
from tao2serve.loadtest.report import write_series_report
from tao2serve.loadtest.series import HighestRate, LoadSeries, judged
from tao2serve.registry.operation import Operation
from tao2serve.tuning.report import report_to, write_outcome

sys.path.insert(0, str(Path(__file__).parents[2]))
from loadtest_samples import record, result
from tuning_samples import tuning_outcome

PROJECT = "Contract load tests"
folder = Path(sys.argv[1])
processor = ModelRequestProcessor(force_create=True, name="tested", project=PROJECT)
processor.serialize()  # notes its version
service_id = str(processor.get_id())
Task.get_task(task_id=service_id).set_configuration_object(
    "endpoints", config_dict={f"street/{version}": {"model_id": f"m{version}"} for version in (1, 2, 4)}
)
# Who came after the one that made version 1 found it there; another one's model was never registered.
for version, model, precision in (("1", "m1", "int8"), ("1", "m1", "fp16"), ("1", "m9", "fp32"), ("2", "m2", "fp32")):
    with Operation("deploy", endpoint="street", service_id=service_id, project=PROJECT) as operation:
        operation.note(version=version, model=model)
        operation.record(
            "deployment",
            {
                "artifact": {"precision": precision, "tools": {"tao2serve": "0.1", "tensorrt": "10.3"}},
                "placement": "ensemble",
                "source": {"weights": "a.hdf5"},
            },
        )

deployed = find_deployment("street", 1, service_id=service_id)
assert deployed is not None
one = result([record(index / 20, 10 + index % 7) for index in range(200)])
gates = [parse_gate("p99=50ms")]
write_report(one, verdicts=evaluate(one, gates), directory=folder / "one")
report_load(deployed, one, directory=folder / "one", gates=gates)

later = replace(one, started_at=one.started_at + timedelta(minutes=1))
runs = [judged(replace(later, plan=replace(one.plan, shape=OpenLoop(rate_rps=rate))), gates) for rate in (20, 10)]
highest = HighestRate(gates=tuple(gates), holds_rps=20, fails_rps=None, confidence="")
series = LoadSeries(runs=tuple(runs), highest=highest)
write_series_report(series, directory=folder / "series")
report_load(deployed, series, directory=folder / "series")

(folder / "tune").mkdir()
report_to(deployed, write_outcome(tuning_outcome(folder / "tune")))

task = Task.get_task(task_id=deployed.task_id)
samples = {}
for name in ("tuning.html", "tuning.json", "tuned.toml"):
    (sample,) = task.get_debug_samples(f"tuning {name}", f"{one.started_at:%Y-%m-%d %H:%M:%S}")
    samples[name] = Path(StorageManager.get_local_copy(sample["url"])).read_text()
for name in ("report.html", "result.json"):
    for started in (one.started_at, later.started_at):
        moment = f"{started:%Y-%m-%d %H:%M:%S}"
        (sample,) = task.get_debug_samples(f"load test {name}", moment)
        samples[f"{moment} {name}"] = Path(StorageManager.get_local_copy(sample["url"])).read_text()
print(
    json.dumps(
        {
            "status": task.get_status(),
            "environment": dict(deployed.environment),
            "task": deployed.task_id,
            "plots": sorted([plot["metric"], plot["variant"]] for plot in task.get_reported_plots(max_iterations=100)),
            "values": task.get_reported_single_values(),
            "samples": {name: len(text) for name, text in samples.items()},
            "p99": json.loads(samples["2026-09-21 14:13:20 result.json"])["latency_ms"]["p99"],
            "unknown": [
                find_deployment("street", 3, service_id=service_id),
                find_deployment("street", 4, service_id=service_id),
                find_deployment("cars", 1, service_id=service_id),
                find_deployment("street", None, service_id=service_id),
            ],
        }
    )
)
