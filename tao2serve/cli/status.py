"""`tao2serve status`: what serves, with what share, what is left over, and what to do about it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tao2serve.cli.options import Json, Service
from tao2serve.cli.output import print_json, print_text, quiet

if TYPE_CHECKING:
    from tao2serve.registry.operations import OperationRecord
    from tao2serve.serving.judgement import EndpointStatus, Note, VersionStatus
    from tao2serve.serving.status import ServiceStatus, Side

WIDE: Final = 120  # columns from which on whole ids are shown
NARROW: Final = 90  # below it models are not: --json has them
DEFAULT_WIDTH: Final = 100
HEADS: Final = ("", "version", "share", "requests", "failed", "Triton", "instances", "precision", "source", "model")
UNKNOWN_REPOSITORY: Final = "not known here: set TAO2SERVE_MODEL_REPOSITORY"
RIGHT: Final = ("version", "share", "requests", "failed")


def status(
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint; default: all of the serving service.")
    ] = "",
    service: Service = None,
    json_output: Json = False,
) -> None:
    """Show versions, shares, traffic, readiness and leftovers of endpoints; it changes nothing.

    Example: tao2serve status street
    """
    from tao2serve.config import home, load_settings
    from tao2serve.serving.names import endpoint_and_version
    from tao2serve.serving.status import read_status

    settings = load_settings({"service": service})
    name, _ = endpoint_and_version(endpoint, takes_version=False)
    with quiet(home() / "logs" / "status.log"):
        seen = read_status(name, settings)
    if json_output:
        print_json(seen.to_dict())
    else:
        print_text(status_text(seen, width=shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns))


def status_text(seen: ServiceStatus, *, width: int) -> str:
    """Return the page in lines of at most `width` columns, if no single word is longer."""
    lines = [*_head(seen, width)]
    for endpoint in seen.endpoints:
        lines += ["", *_endpoint(endpoint, seen, width)]
    if not seen.endpoints:
        lines += ["", "no endpoint is deployed; deploy one: tao2serve deploy --project PROJECT --endpoint NAME"]
    if seen.running:
        lines += ["", "running now"]
        lines += [line for record in seen.running for line in _wrapped(f"{record}", width, indent="  ")]
    if seen.notes:
        lines += ["", "to know"]
        lines += [line for note in seen.notes for line in _note(note, width)]
    return "\n".join(lines)


def _head(seen: ServiceStatus, width: int) -> Iterator[str]:
    alive = [instance for instance in seen.instances if instance.is_alive]
    looks = f"{len(alive)} instance{'s' if len(alive) != 1 else ''}" + (
        f", a look at the configuration every {seen.poll_s:.4g} s" if alive else ""
    )
    rows = (
        ("service", f"{seen.service_name} ({seen.service_id}), {seen.service_status}"),
        ("inference", f"{_side(seen.inference)}; {looks}"),
        ("Triton", _side(seen.triton) + ("; ClearML Serving's own controller runs it" if seen.managed else "")),
        *([] if seen.managed else [("repository", seen.repository or UNKNOWN_REPOSITORY)]),
    )
    for name, text in rows:
        yield from _wrapped(text, width, first=f"{name:<11}", indent=" " * 11)


def _side(side: Side) -> str:
    if side.is_there:
        return f"{side.address} answers"
    return f"{side.address} is away: {side.problem}" if side.address else side.problem


def _endpoint(endpoint: EndpointStatus, seen: ServiceStatus, width: int) -> Iterator[str]:
    yield from _wrapped(endpoint.url, width, first=f"{endpoint.name}  ", indent="  ")
    if endpoint.versions:
        rows = [_row(version, wide=width >= WIDE) for version in endpoint.versions]
        shown = len(HEADS) if width >= NARROW else len(HEADS) - 1
        yield from _table(HEADS[:shown], [row[:shown] for row in rows], width)
        yield from _wrapped(
            "* gets requests from an alias; requests: answered by Triton since it loaded the model", width, indent="  "
        )
    if endpoint.operations:
        yield "  last operations"
        for record in endpoint.operations:
            yield from _wrapped(_operation(record, seen.now), width, first="    ", indent="      ")


def _row(version: VersionStatus, *, wide: bool) -> tuple[str, ...]:
    traffic = version.traffic
    ready = {None: "?", True: "ready", False: "not ready"}[version.is_ready]
    model = version.model_id if wide else version.model_id[:8]
    source = version.source_name or (version.source_id if wide else version.source_id[:8])
    return (
        "*" if version.is_routed else "",
        str(version.version),
        f"{version.share * 100:.4g} %",
        f"{traffic.answered:,}" if traffic else "?",
        f"{traffic.failed:,}" if traffic else "?",
        ready,
        f"{len(version.known_to)} of {version.instances}",
        version.precision or "?",
        source or "a file",
        model if version.model_is_there else f"{model} (gone)",
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Columns as wide as their content; the source gives way if the page is too narrow."""
    sizes = [max(len(row[index]) for row in (heads, *rows)) for index in range(len(heads))]
    source = heads.index("source")
    excess = 2 + sum(sizes) + 2 * (len(sizes) - 1) - 1 - width
    sizes[source] = max(sizes[source] - max(excess, 0), len("source"))
    for row in (heads, *rows):
        cells = [
            cell.rjust(size) if head in RIGHT else _cut(cell, size).ljust(size)
            for head, cell, size in zip(heads, row, sizes, strict=True)
        ]
        yield "  " + (cells[0] + " " + "  ".join(cells[1:])).rstrip()


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _operation(record: OperationRecord, now: datetime) -> str:
    version = f" {record.version}" if record.version is not None else ""
    by = f" by {record.holder.user}@{record.holder.host}" if record.holder else ""
    message = f": {record.message}" if record.message and record.status == "failed" else ""
    return f"{_ago(record, now)}  {record.kind}{version}, {record.status}{by}{message}"


def _ago(record: OperationRecord, now: datetime) -> str:
    seconds = max((now - record.created).total_seconds(), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _note(note: Note, width: int) -> Iterator[str]:
    yield from _wrapped(f"{note.subject} {note.fact}", width, first="  - ", indent="    ")
    if note.mend:
        yield from _wrapped(note.mend, width, first="    → ", indent="      ")


def _wrapped(text: str, width: int, *, first: str = "", indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first or indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    ) or [first or indent]  # fmt: skip
