"""`tao2serve predict`: ask an endpoint about pictures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tao2serve.cli.options import Json, Service, one_of
from tao2serve.cli.output import INTERRUPTED, Told, error_document, print_text, quiet
from tao2serve.cli.progress import Count, shown_count

if TYPE_CHECKING:
    from tao2serve.errors import InputError, Tao2ServeError
    from tao2serve.formats import Format, Layout
    from tao2serve.formats.spool import Spool
    from tao2serve.images import NamedImage
    from tao2serve.serving.batch import Asked
    from tao2serve.serving.client import Answer


def predict(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name in the serving service, or a URL.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures (JPEG, PNG, BMP, WebP), and folders of them.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Save the pictures with their boxes, and the files, here."),
    ] = None,
    format_name: Annotated[
        str,
        typer.Option("--format", metavar="F", help="native (the default), coco, kitti, roboflow or fiftyone."),
    ] = "native",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Take the pictures of subfolders too.")] = False,
    min_score: Annotated[
        float, typer.Option("--min-score", metavar="S", min=0.0, max=1.0, help="Leave out boxes scored below.")
    ] = 0.0,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, max=64, help="Pictures asked about at a time.")
    ] = 4,
    service: Service = None,
    json_output: Json = False,
) -> int:
    """Ask an endpoint about pictures; -o draws the boxes and writes them in a format other tools read.

    With -o DIR: native predictions.jsonl, coco instances.json and results.json, fiftyone labels.json; kitti one .txt
    and roboflow one .json a picture. Without it that goes to stdout, for native in words. A picture that cannot be
    read or is refused does not stop the others, and makes the exit code 3.

    Example: tao2serve predict street street.jpg -o out

    Example: tao2serve predict street pictures --recursive --format coco -o out
    """
    from tao2serve.config import home
    from tao2serve.formats import FORMATS, layout_of
    from tao2serve.formats.files import check_replaceable
    from tao2serve.formats.spool import Spool
    from tao2serve.images import name_images
    from tao2serve.serving.resolve import endpoint_url

    wanted = one_of(format_name, FORMATS, option="--format")
    pictures = name_images(images, recursive=recursive, output=output)
    _check_printable(wanted, pictures, output, json_output)
    with layout_of(wanted) as layout, closing(Spool()) as entries:
        if output is not None:
            check_replaceable(layout, output, (picture.stem for picture in pictures))
        with quiet(home() / "logs" / "predict.log"):
            url = endpoint_url(endpoint, service_id=service or "")
        run = _Run(
            url=url, format=wanted, pictures=pictures, output=output, layout=layout, entries=entries,
            as_json=json_output, in_words=not json_output and (output is not None or wanted == "native"),
        )  # fmt: skip
        outcome = _ask(run, min_score=min_score, concurrency=concurrency)
        return _finish(run, outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What is asked, and where it goes."""

    url: str
    format: Format
    pictures: Sequence[NamedImage]
    output: Path | None
    layout: Layout
    entries: Spool  # of the JSON document, one a picture
    as_json: bool
    in_words: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """How far it got, and what came in between."""

    answered: int = 0
    refused: int = 0
    first_refused: InputError | None = None
    failure: Tao2ServeError | None = None
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def asked(self) -> int:
        return self.answered + self.refused


def _check_printable(wanted: str, pictures: Sequence[NamedImage], output: Path | None, as_json: bool) -> None:
    from tao2serve.errors import UsageError

    if wanted == "kitti" and output is None and not as_json and len(pictures) > 1:
        raise UsageError(
            "--format", f"kitti makes one file a picture, and there are {len(pictures)}", hint="give -o DIR"
        )


def _ask(run: _Run, *, min_score: float, concurrency: int) -> _Outcome:
    """Ask about all pictures; an interrupt or a failure ends it, and what came until then stays."""
    from tao2serve.errors import Tao2ServeError
    from tao2serve.formats.files import write_shared_files
    from tao2serve.interrupts import deferred_interrupts
    from tao2serve.serving.batch import ask_many, drawing_places

    start = time.monotonic()
    drawings = drawing_places(run.pictures, run.output) if run.output is not None else None
    outcome = _Outcome()
    answers = ask_many(run.url, run.pictures, concurrency=concurrency, min_score=min_score, drawings=drawings)
    try:
        with (
            shown_count(sys.stderr, total=len(run.pictures), shown=not run.as_json) as count,
            closing(answers),
        ):
            for asked in answers:
                with deferred_interrupts():  # an entry is written whole
                    outcome = _take(run, asked, outcome, count)
                    count.step(asked.answer is None)
    except KeyboardInterrupt:
        outcome = replace(outcome, interrupted=True)
    except Tao2ServeError as error:
        outcome = replace(outcome, failure=error)
    except BrokenPipeError:  # nobody reads stdout any more, as after `head`; the files stay
        if run.output is not None:
            write_shared_files(run.layout, run.output)
        raise
    return replace(outcome, seconds=time.monotonic() - start)


def _take(run: _Run, asked: Asked, outcome: _Outcome, count: Count) -> _Outcome:
    path = asked.image.path
    if asked.answer is None:
        assert asked.problem is not None
        words = asked.problem.evidence or asked.problem.fact
        run.entries.add({"file": str(path), "drawing": None, "error": words})
        _tell_problem(run, f"{path}: {asked.problem.fact.split(' by ')[0].removeprefix('was ')}: {words}", count)
        first = outcome.first_refused or asked.problem
        return replace(outcome, refused=outcome.refused + 1, first_refused=first)
    entry, own_file = _keep(run, asked, asked.answer)
    drawing = str(asked.drawing) if asked.drawing else None
    written = {"written": str(own_file)} if own_file else {}
    run.entries.add({"file": str(path), "drawing": drawing, **written, **entry})
    if run.in_words:
        count.say(_lines(path, asked.answer, (("drawn", asked.drawing), ("written", own_file))))
    return replace(outcome, answered=outcome.answered + 1)


def _keep(run: _Run, asked: Asked, answer: Answer) -> tuple[dict[str, Any], Path | None]:
    """Add a picture to the layout; return its entry of the JSON document, and its own file if it has one."""
    from tao2serve.formats import PictureDetections
    from tao2serve.formats.files import write_own_file

    picture = PictureDetections(
        name=asked.image.name,
        width=answer.width,
        height=answer.height,
        predictions=answer.predictions,
        document=answer.document,
        path=str(asked.image.path),
    )
    entry = run.layout.add(picture)
    if run.output is None or not run.layout.ending:
        return entry, None
    place = run.output / f"{asked.image.stem}{run.layout.ending}"
    return entry, write_own_file(run.layout.text_of(picture), place)


def _tell_problem(run: _Run, line: str, count: Count) -> None:
    """Name a picture that came to nothing: among the others' lines, or beside a document on stdout."""
    if run.in_words:
        count.say(line)
    elif not run.as_json:
        count.note(line)


def _finish(run: _Run, outcome: _Outcome) -> int:
    """Write the shared files, print the document or the last words, and return the exit code."""
    from tao2serve.formats.files import write_shared_files
    from tao2serve.interrupts import deferred_interrupts

    with deferred_interrupts():
        files = write_shared_files(run.layout, run.output) if run.output is not None and outcome.answered else ()
        error = _error(run, outcome)
        if run.as_json:
            _print_document(run, error, files, interrupted=outcome.interrupted)
            return _code(error, outcome)
        if run.in_words:
            for path in files:
                print_text(f"written: {path}")
        elif outcome.answered:
            run.layout.write_alone(sys.stdout)
            sys.stdout.flush()
        if len(run.pictures) > 1 or outcome.interrupted:
            sys.stderr.write(_summary(run, outcome) + "\n")
    if outcome.failure is not None:
        raise outcome.failure
    return _code(error, outcome)


def _error(run: _Run, outcome: _Outcome) -> Tao2ServeError | None:
    """Return what a JSON document names as the error: an interrupt before a failure, that before a picture's."""
    from tao2serve.errors import Tao2ServeError

    if outcome.interrupted:
        were = "picture was" if len(run.pictures) == 1 else "pictures were"
        got = f"{outcome.asked} of {len(run.pictures)} {were} asked about"
        return Tao2ServeError("tao2serve", "was interrupted", evidence=got, hint="run it again")
    return outcome.failure or outcome.first_refused


def _code(error: Tao2ServeError | None, outcome: _Outcome) -> int:
    return Told(INTERRUPTED if outcome.interrupted else error.exit_code if error else 0)


def _print_document(run: _Run, error: Tao2ServeError | None, files: Sequence[Path], *, interrupted: bool) -> None:
    """Print the one JSON document, entry by entry, for there may be many."""
    head: dict[str, Any] = error_document(error) if error else {"outcome": "ok"}
    if interrupted:
        head["exit_code"] = INTERRUPTED
    head |= {"endpoint": run.url, "format": run.format, "files": [str(path) for path in files]}
    out = sys.stdout
    out.write(json.dumps(head, indent=2, default=str).removesuffix("\n}") + ',\n  "results": [\n')
    run.entries.copy_to(out)
    out.write("\n  ]")
    run.layout.write_members(out)
    out.write("\n}\n")
    out.flush()


def _summary(run: _Run, outcome: _Outcome) -> str:
    start = "interrupted: " if outcome.interrupted else ""
    rate = f", {outcome.asked / outcome.seconds:.1f} a second" if outcome.seconds > 1 else ""
    refused = f", {outcome.refused:,} refused or not readable" if outcome.refused else ""
    return (
        f"{start}{outcome.asked:,} of {len(run.pictures):,} picture{'s' if len(run.pictures) != 1 else ''}"
        f" asked about in {outcome.seconds:.1f} s{rate}"
        f": {outcome.answered:,} answered{refused}"
    )


def _lines(path: Path, answer: Answer, places: Sequence[tuple[str, Path | None]]) -> str:
    total = answer.timing_ms.get("total", 0.0)
    found = f"{len(answer.predictions)} detection{'s' if len(answer.predictions) != 1 else ''}"
    lines = [f"{path}: {found}, version {answer.version}, {total:.1f} ms on the server"]
    if answer.predictions:
        width = max(5, *(len(prediction.label) for prediction in answer.predictions))
        lines.append(f"  {'label':<{width}}  score  " + " ".join(f"{side:>7}" for side in ("x1", "y1", "x2", "y2")))
        lines += [
            f"  {prediction.label:<{width}}  {prediction.score:5.3f}  "
            + " ".join(f"{side:7.1f}" for side in prediction.bbox)
            for prediction in answer.predictions
        ]
    return "\n".join([*lines, *(f"  {word}: {place}" for word, place in places if place)])
