"""What a command says in its JSON document, shown on the ClearML task that it runs for: scalars, tables, pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["facts", "numbers", "report"]

SERIES: Final = " "
MOST_ROWS: Final = 300
LONGEST: Final = 300
# Numbers that people compare runs by; all others are rows of the table.
SHOWN: Final = ("_ms", "_rps", "_ratio", "_average_precision", "requests", "failures", "version", "bytes")
LEFT_OUT: Final = ("steps", "readings", "series", "samples")


def report(task: Any, document: Any, folders: Sequence[Path]) -> None:
    """Report a document on its task: its steps and facts as tables, its figures as scalars, HTML pages as artifacts."""
    logger = task.get_logger()
    if isinstance(document, Mapping):
        steps = [
            [str(step.get("name")), step.get("seconds"), str(step.get("detail") or "")[:LONGEST]]
            for step in document.get("steps") or () if isinstance(step, Mapping)
        ]  # fmt: skip
        if steps:
            logger.report_table(
                "steps", SERIES, iteration=0, table_plot=[["step", "seconds", "what came of it"], *steps]
            )
        rows = [[name, str(value)[:LONGEST]] for name, value in facts(document)][:MOST_ROWS]
        if rows:
            logger.report_table("facts", SERIES, iteration=0, table_plot=[["fact", "value"], *rows])
        for name, value in numbers(document):
            logger.report_single_value(name, value)
    for folder in folders:
        for page in sorted(folder.glob("*.html")):
            task.upload_artifact(page.stem, artifact_object=str(page), wait_on_upload=True)
    task.flush(wait_for_uploads=True)


def facts(document: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of a document by its path; lists of objects by number, other lists in one."""
    for name, value in document.items():
        path = f"{before}{name}"
        if name in LEFT_OUT or value is None or value == "":
            continue
        if isinstance(value, Mapping):
            yield from facts(value, f"{path}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value, start=1):
                yield from facts(item if isinstance(item, Mapping) else {"": item}, f"{path}.{number}.")
        elif isinstance(value, list | tuple):
            if value:
                yield path, ", ".join(map(str, value))
        else:
            yield path, value


def numbers(document: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the figures that runs are compared by."""
    for path, value in facts(document):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and any(part.endswith(SHOWN) for part in path.split(".")):
            yield path, float(value)
