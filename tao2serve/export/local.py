"""Run an ONNX artifact here, with the very code that serves it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tao2serve.errors import InputError
from tao2serve.export.inference import open_session
from tao2serve.runtime import Detections, DetectorParams, ImageError, postprocess, preprocess
from tao2serve.runtime.preprocess import MAX_BYTES, MAX_PIXELS
from tao2serve.runtime.values import Float32
from tao2serve.values import ModelArtifact

__all__ = ["LocalDetector", "neutral_picture"]


class LocalDetector:
    """An ONNX artifact in onnxruntime on the CPU."""

    def __init__(
        self, artifact: ModelArtifact, params: DetectorParams, *, limits: tuple[int, int] = (MAX_BYTES, MAX_PIXELS)
    ) -> None:
        self._session: Any = open_session(artifact.path)
        self._signature = artifact.signature
        self._params = params
        self._limits = limits  # bytes, pixels

    def infer(self, batch: Float32) -> tuple[Float32, Float32]:
        """Return (coverage (N, C, h, w), bbox (N, 4C, h, w)) for a batch (N, C, H, W) in [0, 1]."""
        names = [self._signature.coverage.name, self._signature.bbox.name]
        coverage, bbox = self._session.run(names, {self._signature.input.name: batch})
        return np.asarray(coverage), np.asarray(bbox)

    def detect(self, image: bytes, *, subject: str | Path = "image") -> Detections:
        """Return the boxes of one image; raises InputError if the bytes are no image."""
        try:
            tensor, size = preprocess(image, self._params, max_bytes=self._limits[0], max_pixels=self._limits[1])
        except ImageError as error:
            raise InputError(str(subject), "cannot be used", evidence=str(error)) from error
        coverage, bbox = self.infer(tensor[None])
        return postprocess(coverage[0], bbox[0], self._params, image_size=size)


def neutral_picture(params: DetectorParams) -> bytes:
    """Return a JPEG of smooth random colours, always the same, for when the user gave no picture."""
    coarse = np.random.default_rng(0).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((params.width, params.height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()
