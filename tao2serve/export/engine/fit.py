"""Does a plan load on a machine? Asked before any server is touched."""

from __future__ import annotations

from tao2serve.errors import InputError, ToolError
from tao2serve.export.engine.commands import export_command
from tao2serve.export.engine.dialect import same_version
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.plan import Plan
from tao2serve.export.engine.record import caution, misfit

__all__ = ["require_fit"]


def require_fit(plan: Plan, here: Machine) -> tuple[str, ...]:
    """Return what is doubtful, in words, about loading the plan on that machine; nothing is, if it is empty.

    Raises InputError, with both sides and the command that builds it anew, if it does not fit; ToolError if
    neither GPU nor TensorRT of the machine is known. `here` may describe a remote machine; what is "" in it is
    not judged, and named as doubtful.
    """
    if not here.tensorrt_version and not here.compute_capability:
        raise ToolError(
            str(plan.path),
            "cannot be judged: neither a GPU nor TensorRT is here",
            evidence=here.tensorrt_trouble,
            hint="ask on the machine that will serve it",
        )
    reason = _reason(plan, here)
    if reason:
        raise InputError(
            str(plan.path),
            "does not fit this machine",
            evidence=f"{reason}\nplan: {_side(plan)}\nhere: {here}",
            hint=f"build it there again:\n  {_rebuild(plan)}",
        )
    doubts = [] if plan.record is None else [caution(plan.record, here)]
    if plan.record is None:
        doubts.append("it has no record: what GPU it was built for is not known")
    if not here.tensorrt_version:
        doubts.append("which TensorRT is there is not known")
    if not here.compute_capability:
        doubts.append("which GPU is there is not known")
    return tuple(doubt for doubt in doubts if doubt)


def _reason(plan: Plan, here: Machine) -> str | None:
    if plan.record is not None:
        return misfit(plan.record, here)
    known = plan.header_version and here.tensorrt_version
    if known and not same_version(plan.header_version, here.tensorrt_version):
        return f"its header names TensorRT {plan.header_version}, and TensorRT {here.tensorrt_version} is here"
    return None


def _side(plan: Plan) -> str:
    if plan.record is None:
        return f"TensorRT {plan.header_version or 'unknown'} by its header, no record"
    record = plan.record
    return (
        f"{record.gpu_name or 'GPU unknown'} (compute capability {record.compute_capability or 'unknown'}), "
        f"TensorRT {record.tensorrt_version}, {record.platform}"
    )


def _rebuild(plan: Plan) -> str:
    if plan.record is None:
        return export_command("MODEL.onnx", (1, 8, 8))
    record = plan.record
    return export_command(record.onnx_name, (record.min_batch, record.opt_batch, record.max_batch))
