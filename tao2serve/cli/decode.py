"""`tao2serve decode`: raw grids to detections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import Clustering, Json
from tao2serve.cli.output import print_json, print_text
from tao2serve.errors import UsageError

if TYPE_CHECKING:
    from tao2serve.decoding import DecodedImage
    from tao2serve.runtime import DetectorParams


def decode(
    raw: Annotated[
        Path,
        typer.Argument(
            metavar="RAW.npz",
            help="Arrays output_cov, and output_bbox or output_boxes, as the network gave them; "
            "TensorFlow's names (output_cov/Sigmoid:0, output_bbox/BiasAdd:0) are taken too.",
        ),
    ],
    spec: Annotated[
        Path | None, typer.Option("--spec", metavar="FILE", help="TAO experiment spec of the network.")
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option("--params", metavar="FILE", help="params.json, as export writes it; instead of --spec."),
    ] = None,
    clustering: Clustering = None,
    image_size: Annotated[
        str, typer.Option("--image-size", metavar="WxH", help="Size of the original image, to which boxes are scaled.")
    ] = "",
    json_output: Json = False,
) -> None:
    """Turn a network's raw grids into detections, as an endpoint would.

    Boxes are in pixels of --image-size, else of the sizes that the file holds as orig_sizes_wh, else of the network.
    Cells with values that are not finite give no box; how many values these are is said.

    Example: tao2serve decode raw.npz --spec experiment_spec.txt --image-size 1920x1080
    """
    size = _size(image_size) if image_size else None
    if (spec is None) == (params is None):
        fact = "needs one of --spec and --params" if spec is None else "takes only one of --spec and --params"
        raise UsageError("decode", fact, hint="tao2serve decode RAW.npz --spec FILE")
    if clustering is not None and spec is None:
        raise UsageError("--clustering", "needs an experiment spec to lie over", hint="add: --spec FILE")
    from tao2serve.decoding import decode_grids, params_from_file, params_from_spec, read_grids

    if spec is not None:
        settings = params_from_spec(spec, clustering=clustering)
    else:
        assert params is not None
        settings = params_from_file(params)
    grids = read_grids(raw)
    images = decode_grids(grids, settings, image_size=size)
    source = "option" if size else "file" if grids.image_sizes else "network"
    if json_output:
        print_json(
            {"outcome": "ok", "image_size_from": source, "images": [image.to_dict(settings) for image in images]}
        )
        return
    tables = [_table(number, image, settings) for number, image in enumerate(images)]
    if source == "network":
        tables.append("no image size is known: boxes are in pixels of the network's input (--image-size WxH)")
    print_text("\n".join(tables))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", text.strip())
    if match is None:
        raise UsageError("--image-size", f"is {text!r}, not a size", hint="for example: --image-size 1920x1080")
    return int(match.group(1)), int(match.group(2))


def _table(number: int, image: DecodedImage, params: DetectorParams) -> str:
    """Return one image's detections, one a line."""
    predictions = image.to_dict(params)["predictions"]
    found = f"{len(predictions)} detection{'s' if len(predictions) != 1 else ''}"
    lines = [f"image {number}, {image.size[0]}x{image.size[1]}: {found}"]
    if any(image.not_finite.values()):
        counts = " and ".join(f"{count:,} of {name}" for name, count in image.not_finite.items())
        lines.append(f"  note: values that are not finite, whose cells give no box: {counts}")
    if predictions:
        width = max(5, *(len(prediction["label"]) for prediction in predictions))
        lines.append(
            f"  {'label':<{width}}  score  raw score  " + "  ".join(f"{side:>8}" for side in ["x1", "y1", "x2", "y2"])
        )
        lines += [
            f"  {prediction['label']:<{width}}  {prediction['score']:5.3f}  {prediction['raw_score']:9.3f}  "
            + "  ".join(f"{side:8.2f}" for side in prediction["bbox"])
            for prediction in predictions
        ]
    return "\n".join(lines)
