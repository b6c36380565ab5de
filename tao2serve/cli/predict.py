"""`tao2serve predict`: ask an endpoint about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tao2serve.cli.options import Json, Service
from tao2serve.cli.output import error_document, print_json, print_text, quiet

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
) -> int:
    """Ask an endpoint about pictures; -o draws the boxes. A picture that is refused exits 3, after all are asked.

    Example: tao2serve predict street street.jpg -o out
    """
    from tao2serve.config import home
    from tao2serve.errors import InputError
    from tao2serve.images import read_image
    from tao2serve.serving.client import ask, media_type_of
    from tao2serve.serving.drawing import save_drawing
    from tao2serve.serving.resolve import endpoint_url

    bodies = [(path, read_image(path)) for path in images]
    with quiet(home() / "logs" / "predict.log"):
        url = endpoint_url(endpoint, service_id=service or "")
    results: list[dict[str, Any]] = []
    refused: InputError | None = None
    for path, body in bodies:
        try:
            answer = ask(url, body, media_type=media_type_of(path))
        except InputError as error:
            refused = refused or InputError(str(path), f"was refused by {url}", evidence=error.evidence)
            results.append({"file": str(path), "drawing": None, "error": error.evidence})
            if not json_output:
                print_text(f"{path}: refused: {error.evidence}")
            continue
        drawing = None
        if output is not None:
            drawing = save_drawing(body, answer.predictions, path=_place(output, path, images, results))
        results.append({"file": str(path), "drawing": str(drawing) if drawing else None, **answer.document})
        if not json_output:
            print_text(_lines(path, answer, drawing))
    if json_output:
        failure = error_document(refused) if refused else {"outcome": "ok"}
        print_json({**failure, "endpoint": url, "results": results})
    return refused.exit_code if refused else 0


def _place(folder: Path, image: Path, images: list[Path], earlier: list[dict[str, Any]]) -> Path:
    """Return where a picture's drawing goes: a name of its own, and never that of a picture given."""
    taken = {Path(entry["drawing"]).resolve() for entry in earlier if entry["drawing"]}
    taken |= {path.resolve() for path in images}
    numbers = ("", *(f"-{count}" for count in range(2, len(taken) + 3)))
    places = (folder / f"{image.stem}-detections{number}.png" for number in numbers)
    return next(place for place in places if place.resolve() not in taken)


def _lines(path: Path, answer: Answer, drawing: Path | None) -> str:
    total = answer.timing_ms.get("total", 0.0)
    head = f"{path}: {len(answer.predictions)} detections, version {answer.version}, {total:.1f} ms on the server"
    boxes = [
        f"  {prediction.label:<12} {prediction.score:.2f}  " + " ".join(f"{side:7.1f}" for side in prediction.bbox)
        for prediction in answer.predictions
    ]
    return "\n".join([head, *boxes, *([f"  drawn: {drawing}"] if drawing else [])])
