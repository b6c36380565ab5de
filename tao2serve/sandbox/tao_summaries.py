"""What TAO's visualizer writes for TensorBoard, and ClearML takes from there: weight histograms and pictures.

Titles and variants are those that ClearML's TensorFlow binding makes of TAO's tags (`tensorboard_visualizer.py`):
`histogram/weight/conv1` becomes title `histogram_weight`, variant `conv1`; `image/images/image/0` becomes title
`image`, variant `images_image_0`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from tao2serve.tao.hdf5 import read_keras_hdf5

__all__ = ["Histogram", "Picture", "validation_pictures", "weight_histograms"]

_BINS: Final = 30
_CONVOLUTIONS: Final = ("Conv2D", "DepthwiseConv2D")
_NORMALIZATION: Final = "BatchNormalization"
_COLOURS: Final = {"car": "#E69F00", "person": "#56B4E9", "road_sign": "#009E73"}
PICTURES: Final = 3  # `num_images` of the sample's specs


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How the values of one array are spread: counts (bins), and the right end of each bin."""

    title: str
    variant: str
    counts: np.ndarray[tuple[int], np.dtype[np.float32]]
    ends: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture at the network's size."""

    variant: str
    image: Image.Image


def weight_histograms(weights: Path) -> Iterator[Histogram]:
    """Yield the histograms of a trained file: kernels of convolutions, gamma and beta of normalizations."""
    for layer in read_keras_hdf5(weights).layers:
        if layer.class_name in _CONVOLUTIONS:
            yield _histogram("histogram_weight", layer.name, layer.weights[0].values)
        elif layer.class_name == _NORMALIZATION:
            yield _histogram("histogram_gamma", layer.name, layer.weights[0].values)
            yield _histogram("histogram_beta", layer.name, layer.weights[1].values)


def _histogram(title: str, variant: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Histogram:
    counts, edges = np.histogram(values, bins=_BINS)
    return Histogram(title=title, variant=variant, counts=counts.astype(np.float32), ends=tuple(map(float, edges[1:])))


def validation_pictures(pictures: Sequence[Path], labels: Path, *, size: tuple[int, int]) -> Iterator[Picture]:
    """Yield the first pictures as the network gets them, (width, height), and again with the labelled boxes drawn.

    TAO draws its predictions (`car_rectangle_bbox_preds`); what is drawn here is the ground truth, and called so.
    """
    for index, path in enumerate(pictures[:PICTURES]):
        with Image.open(path) as original:
            scale = size[0] / original.width, size[1] / original.height
            small = original.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        yield Picture(variant=f"images_image_{index}", image=small)
        drawn = small.copy()
        canvas = ImageDraw.Draw(drawn)
        for row in (labels / f"{path.stem}.txt").read_text(encoding="utf-8").splitlines():
            name, *numbers = row.split()
            left, top, right, bottom = (float(number) for number in numbers[3:7])
            box = (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1])
            canvas.rectangle(box, outline=_COLOURS.get(name, "white"), width=2)
        yield Picture(variant=f"labelled_boxes_image_{index}", image=drawn)
