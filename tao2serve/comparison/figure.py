"""The one plot: how good a model is over how long it takes; the page draws it, ClearML takes it as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tao2serve.comparison.compared import Compared, Comparison
from tao2serve.loadtest.drawing import LAYOUT, plotly

__all__ = ["accuracy_over_latency"]

# Okabe and Ito's, which colour-blind eyes tell apart on light and dark; a letter stands beside each.
COLOURS: Final = ("#3b82f6", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
SYMBOLS: Final = ("circle", "square", "diamond")
LONGEST_NAME: Final = 30


def accuracy_over_latency(comparison: Comparison) -> Any | None:
    """Return the figure, None if fewer than two models have both numbers; raises ToolError without plotly."""
    drawn = comparison.drawn
    if len(drawn) < 2:
        return None
    go, _ = plotly()
    figure = go.Figure()
    by_latency = sorted(drawn, key=_place)
    for place, model in enumerate(drawn):
        speed, ratio = model.speed, model.candidate.mean_average_precision
        assert speed is not None
        assert ratio is not None
        figure.add_scatter(
            x=[speed.latency_ms],
            y=[100 * ratio],
            mode="markers+text",
            text=[f"<b>{model.letter}</b>"],
            textposition=f"{_side(model, by_latency)} center",
            name=f"{model.letter}  {_short(model.candidate.name)}",
            marker={"size": 13, "color": COLOURS[place % len(COLOURS)], "symbol": SYMBOLS[place // len(COLOURS)]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [speed.quartiles_ms[1] - speed.latency_ms],
                "arrayminus": [speed.latency_ms - speed.quartiles_ms[0]],
                "thickness": 1.5,
                "width": 4,
            },
            hovertemplate=f"{model.letter}: %{{y:.2f}} % mAP<br>%{{x:.2f}} ms"
            f"<br>{speed.throughput:.1f} images/s<extra></extra>",
        )
    low, high = _range([100 * (m.candidate.mean_average_precision or 0) for m in drawn])
    slowest = max(m.speed.quartiles_ms[1] for m in drawn if m.speed)
    figure.update_layout(
        **{**LAYOUT, "legend": {**LAYOUT["legend"], "y": -0.22, "yanchor": "top"}},
        title={"text": "Accuracy over latency"},
        height=400 + 20 * len(drawn),  # a narrow screen has one name a line below it
        xaxis={"title": {"text": "latency, ms"}, "range": [0, 1.12 * slowest]},
        yaxis={"title": {"text": "mAP, %"}, "range": [low, high]},
    )
    return figure


def _side(model: Compared, by_latency: Sequence[Compared]) -> str:
    """Return where a model's letter goes: away from the model that is nearest in latency, of equals in turns."""
    place = by_latency.index(model)
    own_ms, own = _place(model)
    _, nearest = min((abs(_place(one)[0] - own_ms), _place(one)[1]) for one in by_latency if one is not model)
    if nearest == own:
        return "bottom" if place % 2 else "top"
    return "bottom" if own < nearest else "top"


def _place(model: Compared) -> tuple[float, float]:
    """Return latency and mAP of a model that has both."""
    return (model.speed.latency_ms if model.speed else 0.0), model.candidate.mean_average_precision or 0.0


def _range(values: list[float]) -> tuple[float, float]:
    """Return an axis that shows differences, with room for the letters, and never less than half a point."""
    low, high = min(values), max(values)
    room = max(0.25 * (high - low), 0.25)
    return max(low - 1.2 * room, 0.0), high + 1.2 * room


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
