"""The figures of one run as plotly values: the HTML report draws them, ClearML takes them as they are."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tao2serve.loadtest.drawing import AMBER, BLUE, COLOURS, GREY, LAYOUT, RED, latency_axis, plotly, spans
from tao2serve.loadtest.gates import Gate
from tao2serve.loadtest.records import RequestRecord
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.summary import percentile
from tao2serve.loadtest.waterfall import parts_of, waterfall_figure
from tao2serve.loadtest.window import is_measured

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["axis_name", "figures", "latency_of", "nines", "percentile_line"]

# Beyond this many, points hide each other and the page gets slow; the slowest and the failures are all kept.
_POINTS_SHOWN = 3000
_EDGE_POINTS = 300
_BARS = 40
_PERCENTS = (0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 97, 98, 99, 99.5, 99.9, 99.95, 99.99)


def figures(result: LoadResult, *, gates: Sequence[Gate] = ()) -> list[go.Figure]:
    """Return the figures, each with a title: over time, distribution, percentiles and, if known, the waterfall.

    Limits of `gates` on a percentile are drawn where the percentiles are. Raises ToolError if plotly is not installed.
    """
    go, make_subplots = plotly()
    drawn = [_over_time(make_subplots, go, result)]
    answered = [record for record in _measured(result) if record.ok]
    if answered:
        latencies = sorted(map(latency_of(result), answered))
        drawn += [_distribution(go, result, latencies), _percentiles(go, result, latencies, gates)]
    if parts := parts_of(result):
        drawn.append(waterfall_figure(go, parts))
    return drawn


def latency_of(result: LoadResult) -> Callable[[RequestRecord], float]:
    """Return what latency means in this test: in an open loop the time from the intended start."""
    if result.plan.is_open:
        return lambda record: record.response_ms
    return lambda record: record.latency_ms


def _measured(result: LoadResult) -> list[RequestRecord]:
    return [record for record in result.records if is_measured(result.plan, record)]


def _over_time(make_subplots: Any, go: Any, result: LoadResult) -> go.Figure:
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.06)
    latency = latency_of(result)
    shown = _thinned([record for record in result.records if record.ok], latency)
    failed = [record for record in result.records if not record.ok][-_POINTS_SHOWN:]
    figure.add_scatter(
        **_points(shown, latency), name="request", marker={"size": 4, "color": BLUE, "opacity": 0.35}, row=1, col=1
    )
    if failed:
        marker = {"size": 6, "color": RED, "symbol": "x", "opacity": 0.55}
        text = [record.error for record in failed]
        figure.add_scatter(**_points(failed, latency), name="failure", marker=marker, text=text, row=1, col=1)
    middles = [point.start_s + result.interval_s / 2 for point in result.series]
    for name, colour, values in (
        ("p50", BLUE, [point.p50_ms for point in result.series]),
        ("p95", AMBER, [point.p95_ms for point in result.series]),
    ):
        line = {"color": colour, "width": 3}
        figure.add_scatter(x=middles, y=values, mode="lines", name=name, line=line, row=1, col=1)
    _add_throughput(figure, result, middles)
    if result.plan.warmup_s:
        first_s = min([record.start_s for record in result.records], default=0.0)
        shade = {"fillcolor": GREY, "opacity": 0.18, "line_width": 0, "layer": "below"}
        figure.add_vrect(x0=first_s, x1=0, **shade, row="all", col=1)
        figure.add_annotation(
            **{"x": first_s, "y": 1, "yref": "paper", "text": "warm-up", "showarrow": False},
            **{"xanchor": "left", "yanchor": "top", "font": {"size": 11, "color": GREY}},
        )
    drawn = sorted(latency(record) for record in shown)
    figure.update_yaxes(title_text=axis_name(result), **latency_axis(drawn[len(drawn) // 100 :]), row=1, col=1)
    figure.update_yaxes(title_text="requests/s", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="seconds since the start of the run time", row=2, col=1)
    return figure.update_layout(title_text="Latency and throughput over time", height=460, barmode="stack", **LAYOUT)


def _add_throughput(figure: Any, result: LoadResult, middles: Sequence[float]) -> None:
    answered = {"color": BLUE, "opacity": 0.75}
    values = [point.throughput_rps for point in result.series]
    width = result.interval_s * 0.86
    figure.add_bar(x=middles, y=values, width=width, marker=answered, name="answered", showlegend=False, row=2, col=1)
    if any(point.failures for point in result.series):
        failed = [point.failures / result.interval_s for point in result.series]
        marker = {"color": RED, "opacity": 0.85}
        figure.add_bar(x=middles, y=failed, width=width, marker=marker, name="failed", showlegend=False, row=2, col=1)


def _points(records: Sequence[RequestRecord], latency: Callable[[RequestRecord], float]) -> dict[str, Any]:
    return {
        "x": [round(record.end_s, 3) for record in records],
        "y": [round(latency(record), 2) for record in records],
        "mode": "markers",
    }


def _thinned(records: Sequence[RequestRecord], latency: Callable[[RequestRecord], float]) -> list[RequestRecord]:
    """Keep an even part of the requests and all of the slowest, in order of time."""
    if len(records) <= _POINTS_SHOWN:
        return list(records)
    step = len(records) / (_POINTS_SHOWN - _EDGE_POINTS)
    kept = {int(index * step) for index in range(_POINTS_SHOWN - _EDGE_POINTS)}
    slowest = sorted(range(len(records)), key=lambda index: latency(records[index]))[-_EDGE_POINTS:]
    return [records[index] for index in sorted(kept.union(slowest))]


def _distribution(go: Any, result: LoadResult, latencies: Sequence[float]) -> go.Figure:
    """Histogram up to the 99.5th percentile; the rest is in the last bar: a stray must not flatten it.

    Where even those span too much, the bars are as wide on a logarithmic scale.
    """
    low, high = latencies[0], percentile(latencies, 99.5)
    is_log = spans([max(low, 0.001), high])
    edges = _edges(max(low, 0.001), high, is_log)
    counts = [0] * _BARS
    for latency in latencies:
        counts[min(max(bisect_right(edges, latency) - 1, 0), _BARS - 1)] += 1
    middles = [round((before + after) / 2, 4) for before, after in itertools.pairwise(edges)]
    widths = [0.92 * (after - before) for before, after in itertools.pairwise(edges)]
    figure = go.Figure()
    figure.add_bar(x=middles, y=counts, width=widths, marker={"color": BLUE, "opacity": 0.8}, name="requests")
    for percent, colour in ((50, BLUE), (95, AMBER), (99, RED)):
        value = percentile(latencies, percent)
        if value <= edges[-1]:
            figure.add_vline(x=value, line={"color": colour, "width": 1.5, "dash": "dot"})
            at = math.log10(value) if is_log else value  # plotly places annotations, and only those, so
            figure.add_annotation(
                **{"x": at, "y": 1.02, "yref": "paper", "yanchor": "bottom", "textangle": -35},
                **{"text": f"p{percent}", "showarrow": False, "font": {"size": 11, "color": colour}},
            )
    figure.update_xaxes(title_text=f"{axis_name(result)} · last bar: slowest 0.5 %")
    if is_log:
        figure.update_xaxes(type="log", dtick="D2")
    figure.update_yaxes(title_text="requests")
    return figure.update_layout(title_text="Distribution of latency", height=320, showlegend=False, **LAYOUT)


def _edges(low: float, high: float, is_log: bool) -> list[float]:
    """Return the edges of the bars from `low` to `high`."""
    if is_log:
        return [low * (high / low) ** (index / _BARS) for index in range(_BARS + 1)]
    width = max((high - low) / _BARS, 0.01)
    return [low + index * width for index in range(_BARS + 1)]


def _percentiles(go: Any, result: LoadResult, latencies: Sequence[float], gates: Sequence[Gate]) -> go.Figure:
    """Latency by percentile on a scale of nines, where a tail is seen that a histogram hides."""
    figure = go.Figure()
    name = "response time" if result.plan.is_open else "latency"
    figure.add_scatter(**percentile_line(latencies), name=name, line={"color": BLUE, "width": 2.5})
    if result.plan.is_open:
        service = sorted(record.latency_ms for record in _measured(result) if record.ok)
        line = {"color": AMBER, "width": 2, "dash": "dash"}
        figure.add_scatter(**percentile_line(service), name="service time", line=line)
    # by what was measured: a limit far from it must not press that flat
    values = [value for line in figure.data for value in line.y]
    figure.update_yaxes(title_text=axis_name(result), **latency_axis(values))
    for gate in gates:
        percent = float(gate.metric[1:]) if gate.metric in COLOURS else 0.0
        if percent:
            figure.add_scatter(
                x=[100 / (100 - percent)], y=[gate.limit], mode="markers", name=f"limit of {gate.metric}",
                marker={"symbol": "triangle-down", "size": 12, "color": RED},
                hovertemplate=f"limit: {gate.text}<extra></extra>",
            )  # fmt: skip
    nines(figure)
    shown = len(figure.data) > 1
    return figure.update_layout(title_text="Latency by percentile", height=320, showlegend=shown, **LAYOUT)


def percentile_line(ascending: Sequence[float]) -> dict[str, Any]:
    """Return x, y and texts of the percentiles that have at least one request beyond them."""
    # a percentile needs enough requests beyond it to be more than the maximum repeated
    known = [percent for percent in _PERCENTS if len(ascending) * (100 - percent) >= 100]
    return {
        "x": [100 / (100 - percent) for percent in known],
        "y": [round(percentile(ascending, percent), 3) for percent in known],
        "text": [f"p{percent:g}" for percent in known],
        "hovertemplate": "%{text}: %{y:.1f} ms<extra></extra>",
        "mode": "lines+markers",
        "marker": {"size": 5},
    }


def nines(figure: Any) -> None:
    """Make the x axis one of percentiles, as wide for each further nine."""
    ticks = (50, 90, 99, 99.9, 99.99)
    figure.update_xaxes(
        type="log",
        tickvals=[100 / (100 - tick) for tick in ticks],
        ticktext=[f"{tick:g} %" for tick in ticks],
        title_text="of requests are as fast or faster",
    )


def axis_name(result: LoadResult) -> str:
    return "response time, ms" if result.plan.is_open else "latency, ms"
