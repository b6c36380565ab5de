"""The figures of several runs: latency, throughput and the parts of a request over the load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tao2serve.loadtest.drawing import BLUE, COLOURS, GREY, LAYOUT, RED, latency_axis, plotly
from tao2serve.loadtest.figures import latency_of, nines, percentile_line
from tao2serve.loadtest.gates import Gate
from tao2serve.loadtest.plan import ClosedLoop, OpenLoop
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.series import LoadSeries, SeriesRun
from tao2serve.loadtest.waterfall import parts_of, stage_colour
from tao2serve.loadtest.window import is_measured

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["gates_of", "load_name", "load_of", "series_figures"]

_SPREAD = ("#93c5fd", "#60a5fa", "#3b82f6", "#2563eb", "#8b5cf6", "#d946ef", "#f43f5e", "#f59e0b")


def series_figures(series: LoadSeries) -> list[go.Figure]:
    """Return the figures, each with a title: latency and throughput over load, percentiles by run and, if known, parts.

    Raises ToolError if plotly is not installed.
    """
    go, _ = plotly()
    runs = sorted(series.runs, key=lambda run: load_of(series, run.result))
    answered = [run for run in runs if run.result.latency_ms is not None]
    drawn = [_throughput(go, series, runs)]
    if answered:
        drawn = [_latency(go, series, answered), *drawn, _percentiles(go, series, answered)]
    if any(parts_of(run.result) for run in answered):
        drawn.append(_parts(go, series, answered))
    return drawn


def gates_of(series: LoadSeries) -> tuple[Gate, ...]:
    """Return the gates that the runs were held against, those of the search first."""
    found = list(series.highest.gates if series.highest else ())
    found += [verdict.gate for run in series.runs for verdict in run.verdicts]
    return tuple(dict.fromkeys(found))


def load_of(series: LoadSeries, result: LoadResult) -> float:
    """Return where a run lies on the axis of load: the offered rate or the users, whichever all runs have."""
    shape = result.plan.shape
    if not _is_uniform(series):
        return result.throughput_rps
    return shape.rate_rps if isinstance(shape, OpenLoop) else float(shape.users)


def load_name(series: LoadSeries) -> str:
    if not _is_uniform(series):
        return "answered requests/s"
    return "users" if isinstance(series.runs[0].result.plan.shape, ClosedLoop) else "offered requests/s"


def _is_uniform(series: LoadSeries) -> bool:
    return len({type(run.result.plan.shape) for run in series.runs}) == 1


def _latency(go: Any, series: LoadSeries, runs: Sequence[SeriesRun]) -> Any:
    figure = go.Figure()
    loads = [load_of(series, run.result) for run in runs]
    values: list[float] = []
    for name, colour in COLOURS.items():
        latencies = [run.result.latency_ms.to_dict()[name] for run in runs if run.result.latency_ms is not None]
        values += latencies
        figure.add_scatter(
            x=loads, y=latencies, mode="lines+markers", name=name, line={"color": colour, "width": 2.5},
            marker={"size": 8}, hovertemplate=f"%{{x:.4g}}: {name} %{{y:.1f}} ms<extra></extra>",
        )  # fmt: skip
    _cross_out(figure, [
        (load, latency)
        for load, run in zip(loads, runs, strict=True)
        for latency in ((run.result.latency_ms.to_dict()[name] for name in COLOURS) if run.result.latency_ms else ())
        if run.result.client.saturated
    ])  # fmt: skip
    for gate in gates_of(series):
        if gate.metric in COLOURS:
            figure.add_scatter(
                x=[min(loads), max(loads)], y=[gate.limit, gate.limit], mode="lines", name=f"limit of {gate.metric}",
                line={"color": COLOURS[gate.metric], "width": 2, "dash": "dash"},
                hovertemplate=f"limit: {gate.text}<extra></extra>",
            )  # fmt: skip
    _mark_highest(figure, series, loads)
    _load_axis(figure, series, loads)
    is_open = any(run.result.plan.is_open for run in runs)
    figure.update_yaxes(title_text="response time, ms" if is_open else "latency, ms")
    figure.update_yaxes(**latency_axis(values))
    return figure.update_layout(title_text="Latency over load", height=420, **LAYOUT)


def _cross_out(figure: Any, points: Sequence[tuple[float, float]]) -> None:
    """Mark what the load generator limited; with a name of its own, so that the legend says what a cross is."""
    if points:
        figure.add_scatter(
            x=[load for load, _ in points], y=[value for _, value in points], mode="markers",
            name="client limited", hoverinfo="skip",
            marker={"size": 13, "symbol": "x-thin", "line": {"color": GREY, "width": 3}},
        )  # fmt: skip


def _mark_highest(figure: Any, series: LoadSeries, loads: Sequence[float]) -> None:
    if series.highest is None or series.highest.holds_rps is None or load_name(series) != "offered requests/s":
        return
    figure.add_vline(x=series.highest.holds_rps, line={"color": "#10b981", "width": 2, "dash": "dot"})
    # on the side where there is room
    side = "right" if series.highest.holds_rps > max(loads) / 2 else "left"
    figure.add_annotation(
        **{"x": series.highest.holds_rps, "y": 1, "yref": "paper", "yanchor": "top", "xanchor": side},
        **{"text": f" holds {series.highest.holds_rps:.4g}/s ", "showarrow": False, "font": {"color": "#10b981"}},
    )


def _throughput(go: Any, series: LoadSeries, runs: Sequence[SeriesRun]) -> Any:
    figure = go.Figure()
    loads = [load_of(series, run.result) for run in runs]
    if load_name(series) == "offered requests/s":
        line = {"color": GREY, "width": 1.5, "dash": "dash"}
        figure.add_scatter(x=loads, y=loads, mode="lines", name="offered", line=line)
    answered = [run.result.throughput_rps for run in runs]
    line = {"color": BLUE, "width": 2.5}
    figure.add_scatter(x=loads, y=answered, mode="lines+markers", name="answered", line=line, marker={"size": 8})
    if any(run.result.failures for run in runs):
        failed = [run.result.failures / run.result.plan.run_time_s for run in runs]
        line = {"color": RED, "width": 2}
        figure.add_scatter(x=loads, y=failed, mode="lines+markers", name="failed", line=line, marker={"size": 8})
    at = zip(loads, runs, strict=True)
    _cross_out(figure, [(load, run.result.throughput_rps) for load, run in at if run.result.client.saturated])
    _load_axis(figure, series, loads)
    figure.update_yaxes(title_text="requests/s", rangemode="tozero")
    shown = len(figure.data) > 1
    return figure.update_layout(title_text="Throughput over load", height=320, showlegend=shown, **LAYOUT)


def _percentiles(go: Any, series: LoadSeries, runs: Sequence[SeriesRun]) -> Any:
    figure = go.Figure()
    values: list[float] = []
    for index, run in enumerate(runs):
        result, latency = run.result, latency_of(run.result)
        within = [record for record in result.records if record.ok and is_measured(result.plan, record)]
        drawn = percentile_line(sorted(map(latency, within)))
        values += drawn["y"]
        colour = _SPREAD[round(index * (len(_SPREAD) - 1) / max(len(runs) - 1, 1))]
        name = f"{load_of(series, result):.4g}"
        figure.add_scatter(**drawn, name=name, line={"color": colour, "width": 2})
    nines(figure)
    figure.update_yaxes(title_text="ms", **latency_axis(values))
    title = f"Latency by percentile, one line for each load ({load_name(series)})"
    return figure.update_layout(title_text=title, height=340, **LAYOUT)


def _parts(go: Any, series: LoadSeries, runs: Sequence[SeriesRun]) -> Any:
    """Each run's parts of a request on top of each other; means, which add up."""
    told = [(f"{load_of(series, run.result):.4g}", dict(parts_of(run.result))) for run in runs]
    names = list(dict.fromkeys(name for _, parts in told for name in parts))
    figure = go.Figure()
    for index, name in enumerate(names):
        figure.add_bar(
            x=[load for load, _ in told], y=[round(parts.get(name, 0.0), 3) for _, parts in told], name=name,
            marker={"color": stage_colour(name, index), "line": {"width": 0}},
            hovertemplate=f"{name}: %{{y:.2f}} ms<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text=load_name(series), type="category")
    figure.update_yaxes(title_text="ms of a request, mean")
    return figure.update_layout(title_text="Where the time goes over load", height=360, barmode="stack", **LAYOUT)


def _load_axis(figure: Any, series: LoadSeries, loads: Sequence[float]) -> None:
    figure.update_xaxes(title_text=load_name(series), rangemode="tozero")
    if len(set(loads)) <= 8:
        named: list[float] = []  # a search's last rates are so near that their names would lie on each other
        for load in sorted(set(loads)):
            if not named or load - named[-1] >= max(loads) / 16:
                named.append(load)
        figure.update_xaxes(tickvals=named, ticktext=[f"{load:.4g}" for load in named])
