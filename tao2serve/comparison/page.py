"""The page of a comparison: one HTML file that needs no network, and the JSON document beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tao2serve import __version__
from tao2serve.comparison.compared import Comparison, columns_of, sentence, table_of
from tao2serve.documents import json_text
from tao2serve.errors import UsageError
from tao2serve.loadtest.plan import make_directory
from tao2serve.loadtest.rendering import rendered, replace_file

__all__ = ["write_page"]


def write_page(comparison: Comparison, drawn: Any | None, *, directory: Path) -> Path:
    """Write compare.html and compare.json into a folder and return the page; `drawn` is the plot, if there is one.

    Raises UsageError if the folder cannot be written, ToolError without plotly.
    """
    page = directory.resolve() / "compare.html"
    html = rendered(
        "compare.html.j2",
        [drawn] if drawn is not None else [],
        package="tao2serve.comparison",
        name=" and ".join(model.candidate.name for model in comparison.models[:2])
        + (f" and {len(comparison.models) - 2} more" if len(comparison.models) > 2 else ""),
        badge=("plain", f"{len(comparison.models)} models"),
        banners=[],
        cards=[],
        lead=sentence(comparison) or "What is known of the models, side by side",
        columns=columns_of(comparison),
        rows=table_of(comparison),
        notes=comparison.notes,
        machine=comparison.machine or [("", "nothing was run")],
        version=__version__,
        at=f"{comparison.at:%Y-%m-%d %H:%M:%S} UTC",
    )
    try:
        make_directory(page.parent)
        replace_file(page.with_name("compare.json"), json_text(comparison.to_dict()))
        replace_file(page, html)
    except OSError as error:
        evidence = error.strerror or str(error)
        raise UsageError(str(page.parent), "cannot be written to", evidence=evidence, hint="choose another") from error
    return page
