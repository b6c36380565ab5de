"""What float16 cannot hold on given pictures: a CPU computes in float32 and would not show it in the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tao2serve.export.precision.fp16 import overflowing
from tao2serve.export.precision.load import load_model
from tao2serve.export.precision.observe import float_tensors, largest_values, pictures
from tao2serve.runtime import DetectorParams
from tao2serve.values import ModelArtifact

__all__ = ["overflows_on"]


def overflows_on(reference: ModelArtifact, params: DetectorParams, images: Sequence[Path]) -> tuple[str, ...]:
    """Say which tensors of the fp32 network grow beyond float16 on these images; none is the usual answer."""
    model, subject = load_model(reference), str(reference.path)
    batches = (picture.tensor for picture in pictures(images, params))
    return overflowing(largest_values(model, float_tensors(model, subject=subject), batches, subject=subject))
