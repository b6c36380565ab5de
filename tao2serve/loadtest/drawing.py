"""What all figures of load tests share: plotly, colours that read on light and dark, and the layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tao2serve.errors import ToolError

__all__ = ["AMBER", "BLUE", "COLOURS", "GREY", "LAYOUT", "RED", "latency_axis", "plotly", "spans"]

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


# Latencies that span more than this are drawn on a logarithmic scale, or only the worst would be seen.
_LINEAR_SPAN: Final = 30


def spans(values: Sequence[float]) -> bool:
    """Return whether the values span so much that a linear scale hides most of them."""
    return bool(values) and max(values) > _LINEAR_SPAN * max(min(values), 0.001)


def latency_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return the scale of an axis for these latencies; ticks at 1, 2 and 5 where it is logarithmic."""
    return {"type": "log", "dtick": "D2"} if spans(values) else {"rangemode": "tozero"}


def plotly() -> tuple[Any, Any]:
    """Return plotly's graph objects and its make_subplots; raises ToolError if plotly is not installed."""
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise ToolError("plotly", "not installed", hint="pip install 'tao2serve[loadtest]'") from error
    return go, make_subplots
