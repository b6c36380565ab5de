"""What serves, as far as this machine can tell: Triton's version, GPU and CPU; what it cannot tell is left out."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from tao2serve.loadtest.addresses import is_loopback, place_of
from tao2serve.loadtest.behind import triton_grpc
from tao2serve.loadtest.gpus import gpu_names
from tao2serve.loadtest.plan import LoadPlan
from tao2serve.loadtest.processes import listeners
from tao2serve.loadtest.servers import addresses_of

__all__ = ["describe_servers", "is_here", "triton_version"]

_TIMEOUT_S: Final = 2.0
_TUNNELS: Final = (
    "ssh",
    "autossh",
    "kubectl",
    "socat",
    "haproxy",
    "nginx",
    "envoy",
)  # what they pass on to is elsewhere


def describe_servers(plan: LoadPlan, *, cpu_model: str) -> dict[str, str]:
    """Return members of a result's environment: `triton` (its version), `gpu` (names), `serving_cpu`.

    Hardware is told only of servers whose processes listen on this machine; `cpu_model` is this machine's.
    """
    address = triton_grpc(plan)
    all_here = all(is_here(host, port) for host, port, _ in addresses_of(plan))
    told = {
        "triton": triton_version(address) or _http_version(plan),
        "serving_cpu": cpu_model if all_here else "",
        "gpu": gpu_names() if address and is_here(*place_of(address)) else "",
    }
    return {name: value for name, value in told.items() if value}


def triton_version(address: str) -> str:
    """Return the version that the Triton at HOST:PORT of gRPC says, "" if it says none."""
    if not address:
        return ""
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    client: Any = InferenceServerClient(address)
    try:
        return str(client.get_server_metadata(client_timeout=_TIMEOUT_S).version)
    except InferenceServerException:
        return ""
    finally:
        client.close()


def _http_version(plan: LoadPlan) -> str:
    import httpx

    for target in plan.targets:
        if target.protocol == "triton-http":
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
                answer = httpx.get(f"http://{target.url}/v2", timeout=_TIMEOUT_S, trust_env=False)
                return str(answer.raise_for_status().json()["version"])
    return ""


def is_here(host: str, port: int) -> bool:
    """Whether a server itself, no tunnel to one, listens there on this machine."""
    import psutil

    if not is_loopback(host):
        return False
    roots, _ = listeners(port)
    names = []
    with contextlib.suppress(psutil.Error):
        names = [psutil.Process(pid).name() for pid in roots]
    return bool(names) and not any(name in _TUNNELS for name in names)
