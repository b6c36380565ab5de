"""Preprocess code of the kind clearml-serving's documentation and examples show, for the stock side of stock_path.py.

Image bytes are decoded with PIL into a CHW float32 array (as in its keras and pytorch examples), clearml-serving's own
`process` carries it to Triton, and `postprocess` makes boxes of the grids with the very runtime that ours uses.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tao2serve.runtime import DetectorParams, postprocess


class Preprocess:
    """One instance a process, as clearml-serving makes it."""

    def __init__(self) -> None:
        self._params = DetectorParams.from_dict(json.loads(Path(__file__).with_name("params.json").read_text()))

    def preprocess(
        self,
        body: bytes,
        state: dict[str, Any],
        collect_custom_statistics_fn: Callable[[dict[str, Any]], None] | None = None,
    ) -> Any:
        image = Image.open(io.BytesIO(body)).convert("RGB")
        state["size"] = image.size
        image = image.resize((self._params.width, self._params.height), Image.Resampling.LANCZOS)
        return (np.asarray(image, dtype=np.float32) / np.float32(255.0)).transpose(2, 0, 1)[None]

    def postprocess(
        self,
        data: Any,
        state: dict[str, Any],
        collect_custom_statistics_fn: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        cov, bbox = data
        found = postprocess(cov[0], bbox[0], self._params, image_size=state["size"])
        return {
            "predictions": [
                {"bbox": box, "score": score, "raw_score": raw_score, "class_id": class_id,
                 "label": self._params.classes[class_id].name}
                for box, score, raw_score, class_id in zip(
                    found.xyxy.tolist(), found.score.tolist(), found.raw_score.tolist(), found.class_id.tolist(),
                    strict=True,
                )
            ]
        }  # fmt: skip
