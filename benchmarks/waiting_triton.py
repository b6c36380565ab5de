"""A Triton alone, whose models wait a known time: it costs next to nothing, so that clients can be compared.

`waits` takes the lean pixels of a 48x32 picture, `waits_bytes` a picture's bytes, `waits_floats` the tensor; each
refuses what is not the picture it was promised, and answers one number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tao2serve.sandbox.health import free_ports
from tao2serve.sandbox.triton_server import (
    TritonPorts,
    clean_shared_memory,
    prepare_backends,
    triton_command,
    triton_environment,
)

__all__ = ["WaitingTriton", "waiting_triton"]

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 15.0
_INPUTS = {
    "waits": "TYPE_UINT8 dims: [32, 48, 3]",
    "waits_bytes": "TYPE_STRING dims: [1]",
    "waits_floats": "TYPE_FP32 dims: [3, 32, 48]",
}
_CONFIG = """name: "{name}"
backend: "python"
max_batch_size: 8
input {{ name: "picture" data_type: {tensor} }}
output {{ name: "number" data_type: TYPE_FP32 dims: [1] }}
instance_group {{ count: {instances} kind: KIND_CPU }}
"""
_CODE = """import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "picture").as_numpy()) for request in requests]

    def answer(self, picture):
        time.sleep({wait_s})
        if picture.dtype == np.object_ and not picture[0, 0].startswith(b"\\xff\\xd8"):
            return pb.InferenceResponse(error=pb.TritonError("this is no JPEG", pb.TritonError.INVALID_ARG))
        if picture.dtype == np.float32 and not 0.0 <= picture.min() < picture.max() <= 1.0:
            return pb.InferenceResponse(error=pb.TritonError("this is not in [0, 1]", pb.TritonError.INVALID_ARG))
        return pb.InferenceResponse([pb.Tensor("number", np.ones((1, 1), np.float32))])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTriton:
    """A running server; `pid` may be stopped and continued, to hang it."""

    http: str  # host:port
    grpc: str
    pid: int


@contextlib.contextmanager
def waiting_triton(folder: Path, *, wait_ms: float, instances: int = 4) -> Iterator[WaitingTriton]:
    """Start it in `folder` with `instances` of each model, so many requests wait at once; nothing of it is left."""
    repository, backends = folder / "models", folder / "backends"
    for name, tensor in _INPUTS.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_CODE.format(wait_s=wait_ms / 1000), encoding="utf-8")
        count = instances if name == "waits" else 1
        config = _CONFIG.format(name=name, tensor=tensor, instances=count)
        (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")
    prepare_backends(backends)
    ports = TritonPorts(**dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True)))
    prefix = f"tao2serve_{uuid.uuid4().hex[:8]}_"
    command = triton_command(repository, backends, ports, shared_memory=prefix)
    log = folder / "triton.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *(f"--load-model={name}" for name in _INPUTS)],
            env=triton_environment(os.environ), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, f"http://127.0.0.1:{ports.http}/v2/models/waits/ready", log)
        yield WaitingTriton(http=f"127.0.0.1:{ports.http}", grpc=f"127.0.0.1:{ports.grpc}", pid=process.pid)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # python models that wait outlive a Triton that was killed
        clean_shared_memory(prefix)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"Triton does not serve:\n{log.read_text(errors='replace')[-3000:]}")
