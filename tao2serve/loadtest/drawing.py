"""What all figures of load tests share: plotly, colours that read on light and dark, and the layout."""

from __future__ import annotations

from typing import Any, Final

from tao2serve.errors import ToolError

__all__ = ["AMBER", "BLUE", "COLOURS", "GREY", "LAYOUT", "RED", "plotly"]

BLUE, AMBER, RED, GREY = "#3b82f6", "#f59e0b", "#ef4444", "#94a3b8"
COLOURS: Final = {"p50": BLUE, "p90": "#14b8a6", "p95": AMBER, "p99": RED}
LAYOUT: Final[dict[str, Any]] = {
    "template": "plotly_white",
    "legend": {
        "orientation": "h",
        "x": 0,
        "y": 1.02,
        "yanchor": "bottom",
        "traceorder": "normal",
        "itemsizing": "constant",
    },
    "hovermode": "closest",
}


def plotly() -> tuple[Any, Any]:
    """Return plotly's graph objects and its make_subplots; raises ToolError if plotly is not installed."""
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise ToolError("plotly", "not installed", hint="pip install 'tao2serve[loadtest]'") from error
    return go, make_subplots
