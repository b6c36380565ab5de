"""Build an engine and put plan and record in place."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import tao2serve
from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.export.atomic import write_atomically
from tao2serve.export.engine.builder import EngineBuilder, News
from tao2serve.export.engine.dialect import dialect
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.plan import header_version
from tao2serve.export.engine.record import EngineRecord, record_path
from tao2serve.export.engine.request import EngineRequest, check_artifact
from tao2serve.interrupts import deferred_interrupts
from tao2serve.values import ModelArtifact

__all__ = ["build_engine"]

logger = logging.getLogger(__name__)


def build_engine(
    request: EngineRequest, *, output: Path, builder: EngineBuilder, here: Machine, on_news: News
) -> ModelArtifact:
    """Build a plan at `output` with its record beside it; what was there stays if the build fails.

    `here` is the machine the builder runs on, for the record. At no time is a record beside a plan that it does
    not describe. Raises InputError for an artifact that is not what it says, ToolError if the build fails.
    """
    if output.is_dir():
        raise UsageError(str(output), "is a folder, and a file must go there")
    check_artifact(request.artifact)
    rules = dialect(builder.version, request.artifact.precision)
    started, clock = datetime.now(UTC), time.monotonic()
    plan = builder.build(request, on_news=on_news)
    seconds = time.monotonic() - clock
    _require_plan(plan, builder)
    artifact = ModelArtifact(
        format="tensorrt_plan",
        path=output,
        sha256=hashlib.sha256(plan).hexdigest(),
        precision=request.artifact.precision,
        signature=request.artifact.signature,
        source_sha256=request.artifact.source_sha256,
        batches=(request.min_batch, request.max_batch),
    )
    record = EngineRecord(
        tensorrt_version=builder.version,
        builder=builder.name,
        cuda_version=here.cuda_version,
        driver_version=here.driver_version,
        gpu_name=here.gpu_name,
        compute_capability=here.compute_capability,
        platform=here.platform,
        precision=artifact.precision,
        strongly_typed=rules.strongly_typed,
        ampere_plus=request.ampere_plus,
        min_batch=request.min_batch,
        opt_batch=request.opt_batch,
        max_batch=request.max_batch,
        signature=artifact.signature,
        workspace_bytes=request.workspace_bytes,
        onnx_name=request.artifact.path.name,
        onnx_sha256=request.artifact.sha256,
        source_sha256=artifact.source_sha256,
        plan_sha256=artifact.sha256,
        created_at=started.isoformat(timespec="seconds"),
        build_s=round(seconds, 3),
        tao2serve_version=tao2serve.__version__,
    )
    with deferred_interrupts():
        _put(output, plan, record)
    logger.info("built %s: %d bytes by %s %s in %.1f s", output, len(plan), builder.name, builder.version, seconds)
    return artifact


def _require_plan(content: bytes, builder: EngineBuilder) -> None:
    """Raise ToolError if what was built does not look like a plan."""
    try:
        header_version(content[:64], subject=f"what {builder.name} built")
    except InputError as error:
        raise ToolError(
            f"{builder.name} of TensorRT {builder.version}", "built something that is no plan", evidence=error.evidence
        ) from error


def _put(output: Path, plan: bytes, record: EngineRecord) -> None:
    """Old record away, new plan, new record: a crash in between leaves a plan without a record, never a wrong one."""
    beside = record_path(output)
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            beside.unlink()
    except OSError as error:
        raise UsageError(str(beside), "cannot be replaced", evidence=error.strerror or str(error)) from error
    write_atomically(output, plan)
    write_atomically(beside, record.to_json())
