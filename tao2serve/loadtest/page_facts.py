"""The lists of facts on the pages of a report: what served, and what made the load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from tao2serve.loadtest.page_words import number
from tao2serve.loadtest.result import LoadResult

__all__ = ["SERVED_BY", "Facts", "endpoint_facts", "generator_facts", "more_facts"]

Facts: TypeAlias = list[tuple[str, str]]

# Versions and origin of what serves.
SERVED_BY: Final = {
    "triton": "Triton",
    "tensorrt": "TensorRT that built the plan",
    "onnxruntime": "ONNX Runtime that checked the model",
    "clearml_serving": "ClearML Serving that configured the service",
    "clearml": "ClearML SDK that deployed",
    "deployed_by": "Deployed by",
    "deployment_task": "Deployment task",
}
# Environment members of what serves; the others are of the load generator.
_ENDPOINT_NAMES = {
    "precision": "Precision",
    "placement": "Placement",
    "weights": "Weights",
    "trained_model": "Trained model",
    "gpu": "GPU",
    "serving_cpu": "CPU that serves",
    **SERVED_BY,
}
_GENERATOR_NAMES = {
    "cpu_model": "CPU",
    "cpu_count": "CPUs usable",
    "system": "System",
    "python": "Python",
    "locust": "locust",
    "tao2serve": "tao2serve",
    "images": "Images",
    "images_digest": "Their digest",
    "load_generators": "Processes",
}


def endpoint_facts(result: LoadResult) -> Facts:
    """Return what served: names, model, precision, hardware and versions, as far as they are known."""
    plan = result.plan
    facts = [("Endpoint", plan.endpoint)] if plan.endpoint else []
    facts += [("Address" if len(plan.targets) == 1 else "Target", f"{target.shown_url} {_model(target)}".strip())
              for target in plan.targets]  # fmt: skip
    facts += [("Model", plan.model)] if plan.model else []
    held = result.environment
    return facts + [(name, held[key]) for key, name in _ENDPOINT_NAMES.items() if held.get(key)]


def more_facts(more: Mapping[str, Any]) -> Facts:
    """Return what the command knows beside the run: scenario, cold start, and the ClearML task that was told."""
    facts = []
    if scenario := more.get("scenario"):
        value = "not measured" if scenario["value"] is None else f"{scenario['value']:.4g} {scenario['unit']}"
        facts.append(("Scenario", f"MLPerf {scenario['name']}: {scenario['metric']} {value}"))
    if cold := more.get("cold_start"):
        first = ", ".join(f"{request_ms:.0f}" for request_ms in cold["requests_ms"])
        facts.append(("Cold start", f"loaded in {cold['load_s']:.1f} s; first answers {first} ms"))
    if more.get("reported_to"):
        facts.append(("Reported to", f"ClearML task {more['reported_to']}"))
    return facts


def _model(target: Any) -> str:
    return f"({target.label})" if target.model else ""


def generator_facts(result: LoadResult) -> Facts:
    """Return what made the load and how it fared."""
    held, client, warmup = result.environment, result.client, result.warmup
    facts = [(name, held[key]) for key, name in _GENERATOR_NAMES.items() if held.get(key)]
    facts += [(key, value) for key, value in held.items() if key not in _GENERATOR_NAMES | _ENDPOINT_NAMES]
    cpu = "not measured" if client.cpu_ratio is None else f"{100 * client.cpu_ratio:.0f} % of one core"
    if client.thread_cpu_ratio is not None:
        cpu += f", {100 * client.thread_cpu_ratio:.0f} % by the thread that sends"
    lag = "not measured" if client.start_lag_p99_ms is None else f"{client.start_lag_p99_ms:.2f} ms"
    told = f"{warmup.requests:,} requests, {warmup.failures:,} failed"
    if warmup.latency_ms is not None:
        told += f", p50 {number(warmup.latency_ms.p50)} ms, max {number(warmup.latency_ms.max)} ms"
    facts += [("CPU of the busiest", cpu), ("Start lag, p99", lag)]
    if client.wake_lag_p99_ms is not None:
        facts.append(("Overslept, p99", f"{client.wake_lag_p99_ms:.2f} ms"))
    if client.machine_cpu_ratio is not None:
        facts.append(("CPU of the machine", f"{100 * client.machine_cpu_ratio:.0f} % of all cores"))
    plan = result.plan
    return [*facts, ("Warm-up", told), ("Timeout", f"{plan.timeout_s:g} s"), ("Order of the images", plan.order),
            ("Seed", str(plan.seed))]  # fmt: skip
