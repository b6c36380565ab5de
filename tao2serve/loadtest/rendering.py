"""How a page of figures is made from a template, and how a file is replaced as a whole.

The page carries the whole of plotly.js (4.8 MB) from the installed package. That buys three things: the same
figures go to ClearML, points can be hovered and zoomed, and the page opens on a machine without network.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tao2serve.loadtest.drawing import plotly

__all__ = ["rendered", "replace_file"]

_PACKAGE: Final = "tao2serve.loadtest"


def rendered(template: str, drawn: Iterable[Any], *, package: str = _PACKAGE, **values: object) -> str:
    """Return the page of a template of `package`, which may extend those of this one.

    Raises ToolError if plotly is not installed.
    """
    plotly()
    from jinja2 import ChoiceLoader, Environment, PackageLoader
    from plotly.offline import get_plotlyjs

    places = [PackageLoader(name, ".") for name in dict.fromkeys((package, _PACKAGE))]
    environment = Environment(loader=ChoiceLoader(places), autoescape=True)
    shown = [_figure(figure) for figure in drawn]
    return environment.get_template(template).render(figures=shown, plotly_js=get_plotlyjs(), **values)


def _figure(figure: Any) -> dict[str, str]:
    """Return title and JSON; the page sets fonts and colours itself, for light and dark."""
    title = figure.layout.title.text
    figure = figure.update_layout(template=None, title=None)
    # `</script>` in a text of the server would end the element that holds the JSON
    return {
        "title": title,
        "json": figure.to_json().replace("</", "<\\/"),
        "height": str(figure.layout.height),
    }


def replace_file(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old one or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
