"""What the pages say of series, comparisons, open loops, targets and clients that were the limit."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from loadtest_samples import record, result, run

from tao2serve.cli.load_text import run_text
from tao2serve.loadtest import ClosedLoop, Gate, LoadResult, OpenLoop, Target, evaluate, parse_gate, passed
from tao2serve.loadtest.compare import compare_with
from tao2serve.loadtest.figures import figures
from tao2serve.loadtest.gpus import GpuUse
from tao2serve.loadtest.page_head import banners, outcome, series_outcome
from tao2serve.loadtest.page_tables import missed_by, target_rows
from tao2serve.loadtest.plan import Shape
from tao2serve.loadtest.processes import MachineUse, ProcessUse
from tao2serve.loadtest.report import write_report, write_series_report
from tao2serve.loadtest.series import HighestRate, LoadSeries, SeriesRun
from tao2serve.loadtest.series_figures import series_figures
from tao2serve.loadtest.servers import ServerSide
from tao2serve.loadtest.summary import summarise
from tao2serve.loadtest.triton_counts import ModelCounts
from tao2serve.loadtest.waterfall import parts_of

pytest.importorskip("plotly")

TIMING = {"preprocess": 2.0, "infer": 5.0, "postprocess": 1.0, "total": 8.5}
P99 = parse_gate("p99=50ms")
RULES = (
    ".scroll { overflow-x: auto",
    ".figure { min-width: 0; overflow: hidden",
    "section { padding: 18px 18px 14px; margin-bottom: 16px; min-width: 0",
    "h1 { font-size: 26px; line-height: 1.2; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere",
    "dd { margin: 0; overflow-wrap: anywhere",
    ".pair { grid-template-columns: 1fr; }",
    "responsive: true",
    "width=device-width",
)


def shaped(shape: Shape, latency_ms: float = 20.0, *, lag_s: float = 0.0, saturated: bool = False) -> LoadResult:
    records = [
        record(index / 20, latency_ms + index % 5, timing_ms=TIMING, lag_s=lag_s if index >= 190 else 0.0)
        for index in range(200)
    ]
    found = result(records)
    # what the summary does with a plan that is open from the start
    found = replace(found, plan=replace(found.plan, shape=shape))
    if isinstance(shape, OpenLoop) and found.latency_ms is not None and lag_s:
        found = replace(found, latency_ms=replace(found.latency_ms, p99=1000 * lag_s + latency_ms))
    return replace(found, client=replace(found.client, saturated=saturated, reason="the processor was busy"))


def judged(*results: LoadResult, gates: Sequence[Gate] = (P99,)) -> LoadSeries:
    runs = []
    for found in results:
        verdicts = evaluate(found, gates)
        reached = passed(found, verdicts) and not found.client.saturated
        runs.append(SeriesRun(result=found, verdicts=verdicts, passed=reached))
    return LoadSeries(runs=tuple(runs))


def own_part(page: Path) -> str:
    """Return the page without plotly.js, and spaces as one."""
    text = page.read_text(encoding="utf-8")
    longest = max(re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL), key=len)
    return re.sub(r"\s+", " ", text.replace(longest, ""))


SWEEP = judged(
    shaped(OpenLoop(rate_rps=10)), shaped(OpenLoop(rate_rps=40), 90), shaped(OpenLoop(rate_rps=20), saturated=True)
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    highest = HighestRate(gates=(P99,), holds_rps=10, fails_rps=40, confidence="It held in 3 of 3 <b>runs</b>.")
    return write_series_report(
        replace(SWEEP, highest=highest), directory=tmp_path_factory.mktemp("sweep"), price_per_hour=3.6
    )


def test_a_series_leaves_four_files(sweep: Path) -> None:
    """The page, every run in JSON and in CSV, and every request with the number of its run."""
    assert sorted(path.name for path in sweep.parent.iterdir()) == [
        "report.html",
        "requests.csv",
        "result.json",
        "series.csv",
    ]
    told = json.loads((sweep.parent / "result.json").read_text(encoding="utf-8"))
    assert [run["rate_rps"] for run in told["runs"]] == [10, 40, 20]
    assert [run["passed"] for run in told["runs"]] == [True, False, False]
    assert (told["highest"]["holds_rps"], told["highest"]["gates"]) == (10, ["p99=50ms"])
    assert told["cost"]["per_1000_images"] == pytest.approx(0.05)
    rows = list(csv.DictReader((sweep.parent / "series.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["rate_rps"], row["users"], row["passed"]) for row in rows] == [
        ("10", "", "true"),
        ("40", "", "false"),
        ("20", "", "false"),
    ]
    assert float(rows[1]["p99_ms"]) == told["runs"][1]["latency_ms"]["p99"] == 94
    requests = list(csv.DictReader((sweep.parent / "requests.csv").read_text(encoding="utf-8").splitlines()))
    assert [sum(row["run"] == number for row in requests) for number in "123"] == [200] * 3


def test_a_series_says_which_rate_holds(sweep: Path) -> None:
    """The highest rate, what it rests on, each run's verdict with what it lacked, and who was the limit."""
    page = own_part(sweep)
    for text in (
        "10 requests/s hold p99=50ms, not confirmed",
        "; 40 do not",
        "It held in 3 of 3 &lt;b&gt;runs",
        "p99=50ms by 44 ms (88 %)",
        "<b>The load generator was the bottleneck.</b> 20 requests/s: the processor was busy.<br> The numbers say",
        "Latency over load",
        "0.05 per 1,000 images",
    ):
        assert text in page


def test_nothing_is_loaded_and_nothing_sticks_out(sweep: Path, tmp_path: Path) -> None:
    """No address is loaded from, every table and figure scrolls or shrinks inside its box, long words break."""
    both = (sweep, write_report(SWEEP.runs[0].result, directory=tmp_path))
    for page in map(own_part, both):
        assert not re.search(r"""(src|href|srcset|action)\s*=|@import|url\(|fetch\(|<link|<iframe|<img""", page)
        assert page.count("<table>") == page.count('<div class="scroll"><table>') > 0
        for rule in RULES:
            assert rule in page, rule


def test_a_series_is_drawn_over_its_load() -> None:
    """The offered rate in ascending order, a line per percentile, the limit, and crosses where the client was it."""
    drawn = {figure.layout.title.text: figure for figure in series_figures(SWEEP)}
    latency = drawn["Latency over load"]
    lines = {line.name: line for line in latency.data}
    assert set(lines) == {"p50", "p90", "p95", "p99", "limit of p99", "client limited"}
    assert list(lines["p99"].x) == [10, 20, 40]
    assert list(lines["p99"].y) == [24, 24, 94]
    crosses = lines["client limited"]
    assert (set(crosses.x), set(crosses.y)) == ({20}, {lines[name].y[1] for name in ("p50", "p90", "p95", "p99")})
    (crossed,) = (line for line in drawn["Throughput over load"].data if line.name == crosses.name)
    assert list(crossed.x) == [20]
    assert set(lines["limit of p99"].y) == {50}
    assert latency.layout.xaxis.title.text == "offered requests/s"
    assert "Where the time goes over load" in drawn


def test_mixed_shapes_have_the_throughput_as_their_load() -> None:
    """A closed and an open loop have no users and no rate in common."""
    drawn = series_figures(judged(shaped(ClosedLoop(users=2)), shaped(OpenLoop(rate_rps=10))))
    assert drawn[0].layout.xaxis.title.text == "answered requests/s"
    drawn = series_figures(judged(shaped(ClosedLoop(users=2)), shaped(ClosedLoop(users=1))))
    assert (drawn[0].layout.xaxis.title.text, list(drawn[0].data[0].x)) == ("users", [1, 2])


def test_a_series_without_an_answer_has_a_report(tmp_path: Path) -> None:
    """Only failures: the throughput is drawn, and no rate holds."""
    failed = replace(result([record(1, 5, error="timeout")]), client=result([]).client)
    highest = HighestRate(gates=(P99,), holds_rps=None, fails_rps=1, confidence="")
    page = write_series_report(replace(judged(failed), highest=highest), directory=tmp_path, price_per_hour=1)
    assert "No rate that was tried holds p99=50ms" in own_part(page)


@pytest.mark.parametrize(
    ("holds", "fails", "confirmed", "badge"),
    [
        (10.0, 40.0, True, ("good", "holds 10 requests/s")),
        (10.0, 40.0, False, ("bad", "holds 10 requests/s, not confirmed")),
        (None, 40.0, False, ("bad", "no rate holds the gates")),
        (None, None, False, ("bad", "highest rate not found")),
    ],
)
def test_a_search_is_not_called_better_than_it_is(
    holds: float | None, fails: float | None, confirmed: bool, badge: tuple[str, str]
) -> None:
    """What was not confirmed passes no gate and is not green; where nothing was judged, nothing is said to fail."""
    highest = HighestRate(gates=(P99,), holds_rps=holds, fails_rps=fails, confidence="", confirmed=confirmed)
    assert series_outcome(replace(SWEEP, highest=highest)) == badge
    assert replace(SWEEP, highest=highest).passed == (badge[0] == "good")


def test_a_service_that_falls_behind_is_told(tmp_path: Path) -> None:
    """Where a queue grew until the end, latencies are those of the run's length; a closed loop has no such queue."""
    shape = OpenLoop(rate_rps=20)
    queued = [record(index / 20, 60.0 * index) for index in range(200)]  # the service does 12 a second
    found = summarise(replace(result([]).plan, shape=shape), run(queued), cpu=(), environment={})
    assert (found.open_at_end, found.fell_behind) == (109, True)
    page = own_part(write_report(found, directory=tmp_path))
    assert "<b>More requests than answers.</b> 109 of 200 requests had no answer yet" in page
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (told["open_at_end"], told["fell_behind"]) == (109, True)
    assert "109 of 200 requests had no answer yet" in run_text(found, (), told)
    few = summarise(found.plan, run(queued[:100] + queued[:90]), cpu=(), environment={})
    assert not few.fell_behind
    assert not replace(found, plan=replace(found.plan, shape=ClosedLoop(users=2))).fell_behind


def test_a_sweep_that_was_cut_short_does_not_pass(tmp_path: Path) -> None:
    """The loads that are missing were meant, so those that were tried are not the whole of it."""
    whole = judged(shaped(ClosedLoop(users=1)), shaped(ClosedLoop(users=2)))
    assert whole.passed
    short = replace(whole, cut_short=True)
    assert not short.passed
    page = own_part(write_series_report(short, directory=tmp_path))
    assert '<span class="badge bad">cut short after 2 runs</span>' in page
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (told["passed"], told["cut_short"]) == (False, True)


def test_what_runs_have_in_common_is_said_once() -> None:
    """One alarm and one warning for all runs of a series, a sentence for each; no run is in both."""
    late = replace(shaped(ClosedLoop(users=2)).client, warning="it was late")
    runs = [replace(shaped(ClosedLoop(users=users)), client=late) for users in (1, 2, 4)]
    runs[0] = replace(runs[0], client=replace(late, saturated=True, reason="it was the limit"))
    assert banners(runs) == [
        ("alarm", "The load generator was the bottleneck.",
         "1 user: it was the limit.\nThe numbers say nothing about the endpoint and pass no gate."),
        ("warning", "Mind the load generator.", "2 users: it was late.\n4 users: it was late."),
    ]  # fmt: skip


def test_a_saturated_client_is_said_loudly(tmp_path: Path) -> None:
    """Above all numbers, as an alarm with the reason, and the badge says nothing better."""
    found = shaped(ClosedLoop(users=2), saturated=True)
    page = own_part(write_report(found, verdicts=evaluate(found, [P99]), directory=tmp_path))
    assert page.index('role="alert"') < page.index('class="cards"')
    assert "The processor was busy." in page
    assert "gates passed" not in page


def test_an_open_loop_shows_both_clocks(tmp_path: Path) -> None:
    """Response time and service time side by side in table and figure; a closed loop has one clock."""
    found = shaped(OpenLoop(rate_rps=20), lag_s=1.5)
    page = own_part(write_report(found, directory=tmp_path))
    row = re.search(r"response time</td>.*?</tr>", page)
    assert row is not None
    assert "1,520.0" in row[0]
    assert "from when a request was due" in page
    names = [line.name for line in figures(found)[2].data]
    assert names == ["response time", "service time"]
    assert max(figures(found)[0].data[0].y) > 1500
    assert "from when a request was due" not in own_part(write_report(shaped(ClosedLoop(users=1)), directory=tmp_path))


def test_a_comparison_is_on_the_page_and_in_the_document(tmp_path: Path) -> None:
    """What makes two runs incomparable comes before the numbers; a regression is no passed run."""
    old = shaped(ClosedLoop(users=2))
    write_report(old, directory=tmp_path / "old")
    earlier = tmp_path / "old" / "result.json"
    slower = shaped(ClosedLoop(users=2), 30)
    for new, badge in ((slower, "regression"), (replace(old, plan=replace(old.plan, run_time_s=5)), "not comparable")):
        comparison = compare_with(earlier, new)
        report = write_report(new, directory=tmp_path / "new", comparison=comparison)
        page = own_part(report)
        assert f'<span class="badge bad">{badge}</span>' in page
        told = json.loads(report.with_name("result.json").read_text(encoding="utf-8"))
        assert (told["passed"], told["comparison"]["comparable"]) == (False, badge == "regression")
        if badge == "not comparable":
            assert page.index("incomparable</b>") < page.index("95 % interval")
            assert page.index("<b>run time</b>") < page.index("95 % interval")
        else:
            assert 'title="regression">+4' in page


def test_each_target_has_its_row() -> None:
    """With several targets, each has its own requests, failures and percentiles; with one there is no such table."""
    targets = (
        Target(url="http://127.0.0.1:8080/serve/people/4", weight=3),
        Target(url="127.0.0.1:8001", protocol="triton-grpc", model="people_4"),
    )
    records = [replace(record(index / 10, 10 + 10 * (index % 2)), target=index % 2) for index in range(100)]
    found = result([*records, replace(record(5, 1, error="timeout"), target=1)])
    assert target_rows(found) == []
    found = replace(found, plan=replace(found.plan, targets=targets))
    assert target_rows(found) == [
        ["/serve/people/4", "3", "50", "0", "5.0", "10.0", "10.0", "10.0"],
        ["triton-grpc people_4 at 127.0.0.1:8001", "1", "51", "1", "5.0", "20.0", "20.0", "20.0"],
    ]


def test_why_a_run_does_not_pass(tmp_path: Path) -> None:
    """By how much a gate was missed; that its number is not to be believed; or what else there is."""
    found = shaped(ClosedLoop(users=1), 90)
    assert [missed_by(verdict) for verdict in evaluate(found, [P99])] == ["44 ms (88 %)"]
    silent = result([record(1, 5, error="timeout")])
    assert [missed_by(verdict) for verdict in evaluate(silent, [P99])] == ["not judged: nothing was measured"]
    failing = result([*(record(index / 10, 5) for index in range(90)), *(record(1, 5, error="x") for _ in range(10))])
    verdicts = evaluate(failing, [P99])
    assert [missed_by(verdict) for verdict in verdicts] == [""]
    assert outcome(failing, verdicts) == ("bad", "not passed")
    page = own_part(write_report(failing, verdicts=verdicts, directory=tmp_path))
    assert "<b>Not passed.</b> 10 of 100 requests failed" in page


def test_what_the_servers_did_is_told(tmp_path: Path) -> None:
    """Triton's counters, GPUs, processes and what is not known, where somebody looked."""
    model = ModelCounts(
        name="people_4", requests=200, inferences=200, executions=100, batch_sizes=((1, 20), (2, 80)),
        queue_ms=0.5, input_ms=0.1, infer_ms=3.25, output_ms=0.05, total_ms=4,
    )  # fmt: skip
    gpu = GpuUse(
        gpu="GPU-1", source="NVML", utilisation_ratio_mean=0.5, utilisation_ratio_max=0.75,
        memory_used_bytes_mean=None, memory_used_bytes_max=2**30, power_w_mean=61, power_w_max=72,
    )  # fmt: skip
    process = ProcessUse(
        role="Triton", address="127.0.0.1:8001", pids=(7,), cpu_cores=1.25, rss_mean_bytes=2**28, rss_max_bytes=2**29
    )
    server = ServerSide(
        span_s=9.5, models=(model,), gpus=(gpu,), processes=(process,), machine=MachineUse(cpus=2, cpu_ratio=0.75),
        notes=("nobody told <more>",),
    )  # fmt: skip
    found = replace(shaped(ClosedLoop(users=1)), server=server)
    page = own_part(write_report(found, directory=tmp_path))
    for text in ("people_4", "2.00, at most 2", "3.25", "50 %", "1,024 MiB", "72 W", "1.25 cores", "256 MiB",
                 "1.50 of 2 cores", "9.5 s of the run time", "Nobody told &lt;more&gt;."):  # fmt: skip
        assert text in page, text
    assert dict(parts_of(found))["Triton: compute"] == pytest.approx(3.25)
    assert "Servers during the run" not in own_part(write_report(shaped(ClosedLoop(users=1)), directory=tmp_path))


def test_the_parts_of_a_request_add_up() -> None:
    """Stages, the rest of the server and what is outside make the mean latency; without timing there are none."""
    found = shaped(ClosedLoop(users=1))
    assert [name for name, _ in parts_of(found)] == [
        "outside the server", "preprocess", "infer, not split", "postprocess", "rest of the server",
    ]  # fmt: skip
    assert found.service_ms is not None
    assert sum(value for _, value in parts_of(found)) == pytest.approx(found.service_ms.mean)
    assert parts_of(result([record(1, 5)])) == ()
