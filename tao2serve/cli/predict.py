"""`tao2serve predict`: ask an endpoint about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tao2serve.cli.options import Json, Service
from tao2serve.cli.output import print_json, print_text, quiet

if TYPE_CHECKING:
    from tao2serve.serving.client import Answer


def predict(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name in the serving service, or a URL.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures: JPEG, PNG, BMP or WebP.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Save the pictures with their boxes here.")
    ] = None,
    service: Service = None,
    json_output: Json = False,
) -> None:
    """Ask an endpoint about pictures; -o draws the boxes.

    Example: tao2serve predict street street.jpg -o out
    """
    from tao2serve.config import home
    from tao2serve.serving.client import ask, media_type_of, read_image
    from tao2serve.serving.drawing import save_drawing
    from tao2serve.serving.resolve import endpoint_url

    bodies = [(path, read_image(path)) for path in images]
    with quiet(home() / "logs" / "predict.log"):
        url = endpoint_url(endpoint, service_id=service or "")
    results: list[dict[str, Any]] = []
    for path, body in bodies:
        answer = ask(url, body, media_type=media_type_of(path))
        drawing = save_drawing(body, answer.predictions, path=_place(output, path, results)) if output else None
        results.append({"file": str(path), "drawing": str(drawing) if drawing else None, **answer.document})
        if not json_output:
            print_text(_lines(path, answer, drawing))
    if json_output:
        print_json({"outcome": "ok", "endpoint": url, "results": results})


def _place(folder: Path, image: Path, earlier: list[dict[str, Any]]) -> Path:
    """Return where a picture's drawing goes; pictures of the same name get a number."""
    taken = {entry["drawing"] for entry in earlier}
    names = (f"{image.stem}{number}.png" for number in ("", *(f"-{count}" for count in range(2, len(earlier) + 3))))
    return next(folder / name for name in names if str(folder / name) not in taken)


def _lines(path: Path, answer: Answer, drawing: Path | None) -> str:
    total = answer.timing_ms.get("total", 0.0)
    head = f"{path}: {len(answer.predictions)} detections, version {answer.version}, {total:.1f} ms on the server"
    boxes = [
        f"  {prediction.label:<12} {prediction.score:.2f}  " + " ".join(f"{side:7.1f}" for side in prediction.bbox)
        for prediction in answer.predictions
    ]
    return "\n".join([head, *boxes, *([f"  drawn: {drawing}"] if drawing else [])])
