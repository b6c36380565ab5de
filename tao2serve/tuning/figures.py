"""The figures of a tuning as plotly values: what one setting gives up for another, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tao2serve.loadtest.drawing import AMBER, BLUE, COLOURS, GREY, LAYOUT, RED, latency_axis, plotly
from tao2serve.loadtest.gates import Gate
from tao2serve.tuning.measurement import Measurement
from tao2serve.tuning.points import ROLES, Point, Role, efficient, points_of
from tao2serve.tuning.search import Finalist, Tuning

__all__ = ["NOTES", "tuning_figures"]

GREEN: Final = "#10b981"
_MIB: Final = 2**20
_FAR: Final = 2  # a limit that is further off would only press the marks together
_LOOK: Final[dict[Role, tuple[str, str]]] = {
    "proposed": (GREEN, "circle"),
    "present settings": (BLUE, "circle"),
    "holds": ("#64748b", "circle"),
    "does not hold": (RED, "square"),
    "not judged": (AMBER, "diamond"),
}
_RATE_TITLE, _FINALS_TITLE = "Latency over answered rate, by setting", "The finals, block by block"
_MEMORY_TITLES: Final = {"throughput": "Throughput over memory", "p99": "Latency over memory"}
_MARKS: Final = (
    "Each number is a candidate of the tables; its mark lies at the median of its blocks, and the bars reach from the "
    "least to the most that a block gave. One without bars was measured once, in the survey."
)
_MEMORY: Final = (
    "Memory is what all of Triton's processes take together, other models included; the median of the blocks."
)
NOTES: Final = {
    _RATE_TITLE: _MARKS,
    _MEMORY_TITLES["throughput"]: _MEMORY,
    _MEMORY_TITLES["p99"]: f"{_MARKS} {_MEMORY}",
    _FINALS_TITLE: "A difference that is no larger than what the blocks of one candidate differ is noise.",
}
Number = Callable[[Measurement], float | None]


def tuning_figures(tuning: Tuning, *, gates: Sequence[Gate] = (), memory_bytes: int | None = None) -> list[Any]:
    """Return the figures, each with a title: latency over rate, what is sought over memory if known, and the finals.

    Limits of `gates` on p99 and of the memory are drawn. Raises ToolError if plotly is not installed.
    """
    go, _ = plotly()
    points = [point for point in points_of(tuning) if point.p99_ms is not None]
    drawn = []
    has_memory = any(point.memory_bytes for point in points)
    if points and not (has_memory and tuning.objective == "p99"):  # all have the same rate, the one that is given
        drawn.append(_latency_over_rate(go, points, gates))
    if has_memory:
        drawn.append(_over_memory(go, points, tuning, gates, memory_bytes))
    drawn.append(_finals(go, tuning))
    return drawn


def _latency_over_rate(go: Any, points: Sequence[Point], gates: Sequence[Gate]) -> Any:
    figure = go.Figure()
    _frontier(figure, efficient(points, lambda point: point.throughput_rps, lambda point: point.p99_ms),
              x=lambda block: block.throughput_rps, y=_p99)  # fmt: skip
    _scatter(figure, points, x=lambda block: block.throughput_rps, y=_p99)
    _limit(figure, gates, [point.throughput_rps for point in points])
    figure.update_xaxes(title_text="answered requests/s", rangemode="tozero")
    figure.update_yaxes(title_text="p99, ms", **latency_axis([point.p99_ms or 0 for point in points]))
    return figure.update_layout(title_text=_RATE_TITLE, height=440, **LAYOUT)


def _over_memory(
    go: Any, points: Sequence[Point], tuning: Tuning, gates: Sequence[Gate], limit_bytes: int | None
) -> Any:
    """What is sought over what it costs."""
    known = [point for point in points if point.memory_bytes]
    figure = go.Figure()
    if tuning.objective == "throughput":
        what, value = "answered requests/s", _rate
    else:
        what, value = "p99, ms", _p99
    _scatter(figure, known, x=_memory, y=value)
    if tuning.objective == "p99":
        _limit(figure, gates, [_mib(point.memory_bytes) for point in known])
    if limit_bytes and limit_bytes / _MIB <= _FAR * max(_mib(point.memory_bytes) for point in known):
        top = max(number for point in known for number in _values(point, value))
        figure.add_scatter(
            x=[limit_bytes / _MIB] * 2, y=[0, top], mode="lines", name="limit of memory",
            line={"color": RED, "width": 2, "dash": "dot"},
            hovertemplate=f"limit: {limit_bytes / _MIB:.0f} MiB<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="memory of Triton's processes, MiB", rangemode="tozero")
    figure.update_yaxes(title_text=what, rangemode="tozero")
    return figure.update_layout(title_text=_MEMORY_TITLES[tuning.objective], height=360, **LAYOUT)


def _scatter(figure: Any, points: Sequence[Point], *, x: Number, y: Number) -> None:
    """A numbered mark for each candidate; of a finalist also how far its blocks differ."""
    for rank, role in reversed(tuple(enumerate(ROLES, 1))):  # the proposed one on top
        those = [point for point in points if point.role == role]
        if not those:
            continue
        colour, symbol = _LOOK[role]
        xs, ys = [_values(point, x) for point in those], [_values(point, y) for point in those]
        figure.add_scatter(
            x=[_middle(values) for values in xs], y=[_middle(values) for values in ys], name=role,
            mode="markers+text", text=[str(point.number) for point in those],
            textfont={"size": 11, "color": "#ffffff"},
            marker={
                "size": [22 if point.finalist else 18 for point in those], "color": colour, "symbol": symbol,
                "opacity": 1 if role == "proposed" else 0.9,
            },
            error_x=_spread(xs, colour), error_y=_spread(ys, colour), cliponaxis=False,
            customdata=[str(point.candidate) for point in those], legendrank=rank,
            hovertemplate="%{text}: %{customdata}<br>%{x:.4g}, %{y:.4g}<extra>" + role + "</extra>",
        )  # fmt: skip


def _spread(values: Sequence[Sequence[float]], colour: str) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.5, "width": 3,
        "array": [max(those) - _middle(those) for those in values],
        "arrayminus": [_middle(those) - min(those) for those in values],
    }  # fmt: skip


def _frontier(figure: Any, points: Sequence[Point], *, x: Number, y: Number) -> None:
    if len(points) < 2:
        return
    figure.add_scatter(
        x=[_middle(_values(point, x)) for point in points], y=[_middle(_values(point, y)) for point in points],
        mode="lines", name="none better in both", line={"color": GREY, "width": 1.5, "dash": "dot"}, hoverinfo="skip",
    )  # fmt: skip


def _limit(figure: Any, gates: Sequence[Gate], xs: Sequence[float]) -> None:
    for gate in gates:
        if gate.metric == "p99" and xs:
            figure.add_scatter(
                x=[min(xs), max(xs)], y=[gate.limit, gate.limit], mode="lines", name="limit of p99",
                line={"color": COLOURS["p99"], "width": 2, "dash": "dash"},
                hovertemplate=f"limit: {gate.text}<extra></extra>",
            )  # fmt: skip


def _finals(go: Any, tuning: Tuning) -> Any:
    """Each block of each finalist: a difference that is no larger than that of the blocks is noise."""
    figure = go.Figure()
    value, what = (_rate, "answered requests/s") if tuning.objective == "throughput" else (_p99, "p99, ms")
    numbers = {found.candidate: number for number, found in enumerate(tuning.survey, 1)}
    names = [_name(numbers[finalist.candidate], finalist, tuning) for finalist in tuning.finals]
    for kind, colour, symbol, wanted in (
        ("block that holds", GREEN, "circle", lambda block: block.holds),
        ("block that does not hold", RED, "x", lambda block: bool(block.reasons)),
        ("client saturated", AMBER, "diamond-open", lambda block: bool(block.saturated) and not block.reasons),
    ):
        those = [
            (name, block)
            for name, finalist in zip(names, tuning.finals, strict=True)
            for block in finalist.blocks
            if wanted(block) and value(block) is not None
        ]
        if those:
            figure.add_scatter(
                x=[value(block) for _, block in those], y=[name for name, _ in those], name=kind, mode="markers",
                marker={"size": 12, "color": colour, "symbol": symbol, "opacity": 0.75},
                text=[f"turn {block.block}" for _, block in those], hovertemplate="%{text}: %{x:.4g}<extra></extra>",
            )  # fmt: skip
    medians = [abs(finalist.median) for finalist in tuning.finals]
    shown = [(name, median) for name, median in zip(names, medians, strict=True) if median < 1e9]
    figure.add_scatter(
        x=[median for _, median in shown], y=[name for name, _ in shown], name="median", mode="markers",
        marker={"size": 24, "symbol": "line-ns", "line": {"width": 3, "color": GREY}},
        hovertemplate="median %{x:.4g}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text=what, rangemode="tozero")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1])
    height = 150 + 70 * len(names)
    return figure.update_layout(title_text=_FINALS_TITLE, height=height, **LAYOUT)


def _name(number: int, finalist: Finalist, tuning: Tuning) -> str:
    one = finalist.candidate
    role = "proposed" if one == tuning.proposed else "present" if one == tuning.present else ""
    lines = (f"<b>{number}</b> {role}".strip(), f"{one.placement} ×{one.instances}",
             f"batch {one.max_batch_size}, {one.queue_delay_us} us")  # fmt: skip
    return "<br>".join(lines)


def _values(point: Point, number: Number) -> list[float]:
    return [value for block in point.blocks if (value := number(block)) is not None] or [0.0]


def _middle(values: Sequence[float]) -> float:
    import statistics

    return round(statistics.median(values), 3)


def _rate(block: Measurement) -> float | None:
    return block.throughput_rps


def _p99(block: Measurement) -> float | None:
    return block.p99_ms


def _memory(block: Measurement) -> float | None:
    return None if block.memory_bytes is None else _mib(block.memory_bytes)


def _mib(size_bytes: int | None) -> float:
    return round((size_bytes or 0) / _MIB, 1)
