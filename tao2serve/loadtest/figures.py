"""The figures of a load test as plotly values: the HTML report draws them, ClearML takes them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tao2serve.errors import ToolError
from tao2serve.loadtest.records import RequestRecord
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.summary import OUTSIDE, percentile

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["figures"]

_BLUE, _AMBER, _RED, _GREY = "#3b82f6", "#f59e0b", "#ef4444", "#94a3b8"
_STAGE_COLOURS = ("#14b8a6", "#3b82f6", "#8b5cf6", "#ec4899", "#f59e0b", "#84cc16")
# Beyond this many, points hide each other and the page gets slow; the slowest and the failures are all kept.
_POINTS_SHOWN = 3000
_EDGE_POINTS = 300


def figures(result: LoadResult) -> list[go.Figure]:
    """Return the figures, each with a title: over time, distribution, percentiles and, if known, stages.

    Raises ToolError if plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise ToolError("plotly", "not installed", hint="pip install 'tao2serve[loadtest]'") from error

    drawn = [_over_time(make_subplots, go, result)]
    latencies = sorted(record.latency_ms for record in _measured(result) if record.ok)
    if latencies:
        drawn += [_distribution(go, latencies), _percentiles(go, latencies)]
    if any(stage.stage == OUTSIDE for stage in result.stages):
        drawn.append(_stages(go, result))
    return drawn


def _measured(result: LoadResult) -> list[RequestRecord]:
    return [record for record in result.records if 0 <= record.start_s < result.plan.run_time_s]


def _over_time(make_subplots: Any, go: Any, result: LoadResult) -> go.Figure:
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.06)
    shown = _thinned([record for record in result.records if record.ok])
    failed = [record for record in result.records if not record.ok][-_POINTS_SHOWN:]
    figure.add_scatter(
        **_points(shown), name="request", marker={"size": 4, "color": _BLUE, "opacity": 0.35}, row=1, col=1
    )
    if failed:
        marker = {"size": 6, "color": _RED, "symbol": "x", "opacity": 0.55}
        text = [record.error for record in failed]
        figure.add_scatter(**_points(failed), name="failure", marker=marker, text=text, row=1, col=1)
    middles = [point.start_s + result.interval_s / 2 for point in result.series]
    for name, colour, values in (
        ("p50", _BLUE, [point.p50_ms for point in result.series]),
        ("p95", _AMBER, [point.p95_ms for point in result.series]),
    ):
        line = {"color": colour, "width": 3}
        figure.add_scatter(x=middles, y=values, mode="lines", name=name, line=line, row=1, col=1)
    _add_throughput(figure, result, middles)
    if result.plan.warmup_s:
        first_s = min([record.start_s for record in result.records], default=0.0)
        shade = {"fillcolor": _GREY, "opacity": 0.18, "line_width": 0, "layer": "below"}
        figure.add_vrect(x0=first_s, x1=0, **shade, row="all", col=1)
        figure.add_annotation(
            **{"x": first_s, "y": 1, "yref": "paper", "text": "warm-up", "showarrow": False},
            **{"xanchor": "left", "yanchor": "top", "font": {"size": 11, "color": _GREY}},
        )
    figure.update_yaxes(title_text="latency, ms", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="requests/s", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="seconds since the start of the run time", row=2, col=1)
    return figure.update_layout(title_text="Latency and throughput over time", height=460, barmode="stack", **_LAYOUT)


def _add_throughput(figure: Any, result: LoadResult, middles: Sequence[float]) -> None:
    answered = {"color": _BLUE, "opacity": 0.75}
    values = [point.throughput_rps for point in result.series]
    width = result.interval_s * 0.86
    figure.add_bar(x=middles, y=values, width=width, marker=answered, name="answered", showlegend=False, row=2, col=1)
    if any(point.failures for point in result.series):
        failed = [point.failures / result.interval_s for point in result.series]
        marker = {"color": _RED, "opacity": 0.85}
        figure.add_bar(x=middles, y=failed, width=width, marker=marker, name="failed", showlegend=False, row=2, col=1)


def _points(records: Sequence[RequestRecord]) -> dict[str, Any]:
    return {
        "x": [round(record.end_s, 3) for record in records],
        "y": [round(record.latency_ms, 2) for record in records],
        "mode": "markers",
    }


def _thinned(records: Sequence[RequestRecord]) -> list[RequestRecord]:
    """Keep an even part of the requests and all of the slowest, in order of time."""
    if len(records) <= _POINTS_SHOWN:
        return list(records)
    step = len(records) / (_POINTS_SHOWN - _EDGE_POINTS)
    kept = {int(index * step) for index in range(_POINTS_SHOWN - _EDGE_POINTS)}
    slowest = sorted(range(len(records)), key=lambda index: records[index].latency_ms)[-_EDGE_POINTS:]
    return [records[index] for index in sorted(kept.union(slowest))]


def _distribution(go: Any, latencies: Sequence[float]) -> go.Figure:
    """Histogram up to the 99.5th percentile; the rest is in the last bar: a stray must not flatten it."""
    low, high = latencies[0], percentile(latencies, 99.5)
    bars = 40
    width = max((high - low) / bars, 0.01)
    counts = [0] * bars
    for latency in latencies:
        counts[min(int((latency - low) / width), bars - 1)] += 1
    middles = [round(low + (index + 0.5) * width, 4) for index in range(bars)]
    figure = go.Figure()
    figure.add_bar(x=middles, y=counts, width=width * 0.92, marker={"color": _BLUE, "opacity": 0.8}, name="requests")
    for percent, colour in ((50, _BLUE), (95, _AMBER), (99, _RED)):
        value = percentile(latencies, percent)
        if value <= low + bars * width:
            figure.add_vline(x=value, line={"color": colour, "width": 1.5, "dash": "dot"})
            figure.add_annotation(
                **{"x": value, "y": 1.02, "yref": "paper", "yanchor": "bottom", "textangle": -35},
                **{"text": f"p{percent}", "showarrow": False, "font": {"size": 11, "color": colour}},
            )
    figure.update_xaxes(title_text="latency, ms (slowest 0.5 % in the last bar)")
    figure.update_yaxes(title_text="requests")
    return figure.update_layout(title_text="Distribution of latency", height=320, showlegend=False, **_LAYOUT)


def _percentiles(go: Any, latencies: Sequence[float]) -> go.Figure:
    """Latency by percentile on a scale of nines, where a tail is seen that a histogram hides."""
    percents = [0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 97, 98, 99, 99.5, 99.9, 99.95, 99.99]
    # a percentile needs enough requests beyond it to be more than the maximum repeated
    known = [percent for percent in percents if len(latencies) * (100 - percent) >= 100]
    figure = go.Figure()
    figure.add_scatter(
        x=[100 / (100 - percent) for percent in known],
        y=[round(percentile(latencies, percent), 3) for percent in known],
        text=[f"p{percent:g}" for percent in known],
        hovertemplate="%{text}: %{y:.1f} ms<extra></extra>",
        mode="lines+markers",
        line={"color": _BLUE, "width": 2.5, "shape": "spline", "smoothing": 0.4},
        marker={"size": 5},
        fill="tozeroy",
        fillcolor="rgba(59,130,246,0.12)",
    )
    ticks = (50, 90, 99, 99.9, 99.99)
    figure.update_xaxes(
        type="log",
        tickvals=[100 / (100 - tick) for tick in ticks],
        ticktext=[f"{tick:g} %" for tick in ticks],
        title_text="of requests are as fast or faster",
    )
    figure.update_yaxes(title_text="latency, ms", rangemode="tozero")
    return figure.update_layout(title_text="Latency by percentile", height=320, showlegend=False, **_LAYOUT)


def _stages(go: Any, result: LoadResult) -> go.Figure:
    """Mean milliseconds per stage in one bar; only means add up to the mean of the whole."""
    mean = {stage.stage: stage.mean for stage in result.stages}
    outside, total = mean.pop(OUTSIDE), mean.pop("total")
    rest = total - sum(mean.values())
    parts = [*mean.items(), ("rest of the server", max(rest, 0.0)), ("outside the server", outside)]
    colours = [*(_STAGE_COLOURS[index % len(_STAGE_COLOURS)] for index in range(len(mean))), "#64748b", _GREY]
    figure = go.Figure()
    for (name, value), colour in zip(parts, colours, strict=True):
        if value < 0.001:
            continue
        figure.add_bar(
            x=[value],
            y=[""],
            orientation="h",
            name=f"{name} {value:.1f} ms",
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"{name}: {value:.2f} ms<extra></extra>",
        )
    figure.update_xaxes(title_text="milliseconds per request, mean")
    figure.update_yaxes(showticklabels=False, showgrid=False)
    return figure.update_layout(title_text="Where the time goes", height=220, barmode="stack", bargap=0.3, **_LAYOUT)


_LAYOUT: dict[str, Any] = {
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
