"""An ONNX artifact in, the same network in another precision out: the entry point of this room."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import onnx
from onnx import ModelProto

import tao2serve
from tao2serve.errors import InputError, UsageError
from tao2serve.export.atomic import write_atomically
from tao2serve.export.execution import sample_images
from tao2serve.export.inference import onnxruntime
from tao2serve.export.precision.fold import fold_batch_norm
from tao2serve.export.precision.fp16 import overflowing, to_half
from tao2serve.export.precision.int8 import quantize
from tao2serve.export.precision.load import load_model
from tao2serve.export.precision.nodes import properties, put_properties
from tao2serve.export.precision.observe import float_tensors, largest_values
from tao2serve.export.precision.ranges import Ranges
from tao2serve.export.signature import signature_of
from tao2serve.tao.source import sha256_of
from tao2serve.values import ModelArtifact

__all__ = ["PRECISIONS", "Precision", "require_plain", "to_precision"]

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")


def to_precision(
    artifact: ModelArtifact,
    *,
    precision: Precision,
    output: Path,
    ranges: Ranges | None = None,
    fold: bool = False,
    on_news: Callable[[str], None] = lambda _: None,
) -> ModelArtifact:
    """Write the artifact in `precision`; the same artifact and ranges give the same bytes.

    Input and outputs stay float32 under their names. `output` is the file to write, or an existing folder, where it
    becomes `<stem>_<precision>.onnx`. int8 needs `ranges` and always folds batch norm; fp32 without `fold` changes
    nothing, so the artifact comes back and nothing is written. The metadata records the precision, where ranges
    came from, and what it was made from. `on_news` hears what is worth knowing, such as convolutions left in float.
    Raises InputError for a source that is not fp32 and for values the precision cannot hold, UsageError for int8
    without ranges.
    """
    subject = str(artifact.path)
    if precision == "fp32" and not fold:
        return artifact
    require_plain(artifact)
    if artifact.precision != "fp32":
        raise InputError(subject, f"is {artifact.precision} already", hint="give the fp32 model it was made from")
    model = load_model(artifact)
    described: dict[str, str] = {}
    if precision == "int8":
        model, described = _in_int8(model, ranges, subject, on_news)
    elif fold:
        model = fold_batch_norm(model)
    if precision == "fp16":
        half = to_half(model, subject=subject)
        _refuse_overflow(model, artifact, ranges)
        model = half
        described = {"tao2serve.converter": f"onnxruntime {onnxruntime().__version__}"}
    put_properties(
        model,
        {
            "tao2serve.source_sha256": artifact.source_sha256,
            **properties(model),
            "tao2serve.version": tao2serve.__version__,
            "tao2serve.precision": precision,
            "tao2serve.made_from_sha256": artifact.sha256,
            **described,
        },
    )
    return _write(model, artifact, precision, output)


def require_plain(artifact: ModelArtifact) -> None:
    """Raise InputError for a lean graph.

    float16 would put boxes on positions half a pixel apart, and calibration knows TAO's own input only.
    """
    if artifact.signature.is_lean:
        raise InputError(
            str(artifact.path),
            "is a lean graph, and keeps its precision",
            evidence=str(artifact.signature),
            hint="convert the graph that it was made from, with the same options",
        )


def _in_int8(
    model: ModelProto, ranges: Ranges | None, subject: str, on_news: Callable[[str], None]
) -> tuple[ModelProto, dict[str, str]]:
    if ranges is None:
        raise UsageError(
            "int8",
            "needs to know how large each tensor gets",
            hint="give calibration images, a TAO calibration cache, or a model trained for quantization",
        )
    for note in ranges.notes:
        on_news(note)
    made = quantize(model, ranges, subject=subject)
    if made.left_float:
        on_news(f"{len(made.left_float)} convolutions stay float, no range is known: {', '.join(made.left_float)}")
    return made.model, {
        "tao2serve.converter": f"onnxruntime {onnxruntime().__version__}",
        "tao2serve.range_source": ranges.source,
        "tao2serve.range_method": ranges.method,
        "tao2serve.range_images": "" if ranges.images is None else str(ranges.images),
        "tao2serve.quantized_tensors": str(len(made.tensors)),
        "tao2serve.left_float": "\n".join(made.left_float),
    }


def _refuse_overflow(model: ModelProto, artifact: ModelArtifact, ranges: Ranges | None) -> None:
    """Raise InputError if synthetic images, or known ranges, drive a tensor beyond float16."""
    subject = str(artifact.path)
    image = sample_images(artifact.signature, count=1)
    amax = largest_values(model, float_tensors(model, subject=subject), [image], subject=subject)
    beyond = overflowing(amax | dict(ranges.amax if ranges else {}))
    if beyond:
        raise InputError(
            subject,
            "has values that float16 cannot hold",
            evidence="; ".join(beyond[:3]),
            hint="serve it in fp32 or int8",
        )


def _write(model: ModelProto, artifact: ModelArtifact, precision: Precision, output: Path) -> ModelArtifact:
    subject = str(artifact.path)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # ValidationError, InferenceError, or RuntimeError from the C++ side
        raise InputError(subject, f"gives no valid {precision} graph", evidence=str(error).strip()[:300]) from error
    signature = signature_of(model, subject=subject)
    if signature != artifact.signature:
        raise InputError(
            subject, f"changed its signature on the way to {precision}", evidence=f"{artifact.signature}: {signature}"
        )
    target = output / f"{artifact.path.stem}_{precision}.onnx" if output.is_dir() else output
    write_atomically(target, model.SerializeToString(deterministic=True))
    logger.info("wrote %s in %s to %s", artifact.path.name, precision, target)
    return ModelArtifact(
        format="onnx",
        path=target,
        sha256=sha256_of(target),
        precision=precision,
        signature=signature,
        source_sha256=artifact.source_sha256,
    )
