"""Where the time of a request goes: its parts one after the other, by their means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from tao2serve.loadtest.behind import of_endpoints
from tao2serve.loadtest.breakdown import waterfall
from tao2serve.loadtest.drawing import BLUE, GREY, LAYOUT
from tao2serve.loadtest.result import LoadResult

__all__ = ["Parts", "parts_of", "stage_colour", "waterfall_figure"]

Parts: TypeAlias = tuple[tuple[str, float], ...]  # name and mean milliseconds; they add up to the mean latency

# Names of the breakdown in words that say where the time went.
_NAMES: Final = {
    "outside": "outside the server",
    "queue": "Triton: queue",
    "input": "Triton: input",
    "compute": "Triton: compute",
    "output": "Triton: output",
    "unexplained": "infer, not split",
    "rest": "rest of the server",
}
_STAGES: Final = ("#14b8a6", BLUE, "#8b5cf6", "#ec4899", "#f59e0b", "#84cc16", "#06b6d4", "#b45309")


def parts_of(result: LoadResult) -> Parts:
    """Return the parts of a request, empty if the server gave no account of its time; only means add up."""
    models = of_endpoints(result.server.models, result.plan.targets) if result.server else ()
    return tuple((_NAMES.get(name, name), value) for name, value in waterfall(result.stages, models))


def stage_colour(name: str, index: int) -> str:
    """Return the colour of a part: what is known is coloured, the rest grey."""
    if name.startswith("outside"):
        return GREY
    if name.startswith("rest"):
        return "#64748b"
    return _STAGES[index % len(_STAGES)]


def waterfall_figure(go: Any, parts: Sequence[tuple[str, float]]) -> Any:
    """Return a waterfall: each part begins where the one before it ended."""
    shown = [(name, value) for name, value in parts if value >= 0.001]
    figure = go.Figure()
    start = 0.0
    total = sum(value for _, value in shown)
    for index, (name, value) in enumerate(shown):
        figure.add_bar(
            x=[value], y=[name], base=[start], orientation="h", name=name,
            marker={"color": stage_colour(name, index), "line": {"width": 0}},
            hovertemplate=f"{name}: {value:.2f} ms, {value / total:.0%} of the mean<extra></extra>",
        )  # fmt: skip
        figure.add_annotation(y=name, text=f"{value:.2f} ms", showarrow=False, **_placed(start, value, total))
        start += value
    figure.update_xaxes(title_text="milliseconds of a request, mean")
    figure.update_yaxes(range=[len(shown) - 0.5, -0.5], showgrid=False, automargin=True)
    height = 110 + 30 * len(shown)
    return figure.update_layout(
        title_text="Where the time goes", height=height, barmode="overlay", bargap=0.25, showlegend=False, **LAYOUT
    )


def _placed(start: float, value: float, total: float) -> dict[str, Any]:
    """Return where a bar's label has room: inside a long bar, after a short one, before one near the end."""
    if value > 0.3 * total:
        return {"x": start + value / 2, "font": {"size": 12, "color": "#0b1220"}}
    if start + value > 0.75 * total:
        return {"x": start, "xanchor": "right", "xshift": -4, "font": {"size": 12}}
    return {"x": start + value, "xanchor": "left", "xshift": 4, "font": {"size": 12}}
