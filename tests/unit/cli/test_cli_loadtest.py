"""The options of `loadtest`: what they ask for together, what excludes what, and the text of the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loadtest_samples import plan, record, result
from queue_model import QueueModel

from tao2serve.cli.load_options import Load, awaited_workers, chosen_load, named_targets, target_of
from tao2serve.cli.load_text import layers_text, more_text, run_text, series_text
from tao2serve.cli.main import run
from tao2serve.errors import UsageError
from tao2serve.loadtest import (
    ClosedLoop,
    LoadPlan,
    LoadResult,
    OpenLoop,
    Target,
    evaluate,
    parse_gate,
    write_report,
)
from tao2serve.loadtest.highest import find_max
from tao2serve.loadtest.layers import measure_layers
from tao2serve.loadtest.report import run_document
from tao2serve.loadtest.scenarios import OFFLINE_USERS, headline, scenario_of
from tao2serve.loadtest.sweep import run_sweep
from tao2serve.sandbox.samples import pictures

URL = "http://127.0.0.1:9/serve/x"
NOTHING: dict[str, Any] = dict.fromkeys(
    ("users", "rate", "sweep", "scenario", "arrivals", "within", "search_time"), None
) | {"find_max": False, "gates": ()}


def chosen(**options: Any) -> Load:
    return chosen_load(**(NOTHING | options))


@pytest.mark.parametrize(
    ("options", "loads"),
    [
        ({}, (ClosedLoop(users=1),)),
        ({"users": 4}, (ClosedLoop(users=4),)),
        ({"rate": "20"}, (OpenLoop(rate_rps=20, arrivals="poisson"),)),
        ({"rate": "2.5rps", "arrivals": "constant"}, (OpenLoop(rate_rps=2.5, arrivals="constant"),)),
        ({"sweep": "1,2, 8"}, (ClosedLoop(users=1), ClosedLoop(users=2), ClosedLoop(users=8))),
        ({"sweep": "10rps,20/s"}, (OpenLoop(rate_rps=10), OpenLoop(rate_rps=20))),
        ({"sweep": "5rps", "arrivals": "constant"}, (OpenLoop(rate_rps=5, arrivals="constant"),)),
        ({"scenario": "single-stream"}, (ClosedLoop(users=1),)),
        ({"scenario": "offline"}, (ClosedLoop(users=OFFLINE_USERS),)),
        ({"scenario": "offline", "users": 64}, (ClosedLoop(users=64),)),
        ({"scenario": "server", "rate": "7"}, (OpenLoop(rate_rps=7, arrivals="poisson"),)),
    ],
)
def test_options_name_a_load(options: dict[str, Any], loads: tuple[Any, ...]) -> None:
    """Users a closed loop, a rate an open one, a list a sweep, MLPerf's names their shapes."""
    load = chosen(**options)
    assert load.loads == loads
    assert load.search is None


def test_a_search_begins_where_it_is_told() -> None:
    """With a rate there, with a time and a width as given; a server scenario may be searched."""
    gates = [parse_gate("p99=50ms")]
    load = chosen(find_max=True, rate="12", within="10%", search_time="5m", scenario="server", gates=gates)
    assert load.kind == "search"
    assert load.search is not None
    assert (load.search.start_rps, load.search.within_ratio, load.search.budget_s) == (12, 0.1, 300)
    assert chosen(find_max=True, gates=gates).search is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--users 2 --rate 5", "exclude each other"),
        ("--users 2 --sweep 1,2", "exclude each other"),
        ("--users 0", "users"),
        ("--rate fast", "--rate"),
        ("--rate 0", "--rate"),
        ("--sweep 1,2rps", "mixes"),
        ("--sweep 1,1", "twice"),
        ("--sweep 1.5", "1.5"),
        ("--sweep 1,,2", "no load"),
        ("--sweep 1,2 --arrivals constant", "--arrivals"),
        ("--sweep 1,2 --find-max --slo p99=50ms", "--find-max"),
        ("--sweep 1,2 --scenario offline", "--scenario"),
        ("--sweep 1,2 --compare old.json", "--compare"),
        ("--arrivals constant", "--rate 20"),
        ("--rate 5 --arrivals bursty", "bursty"),
        ("--find-max", "--slo"),
        ("--find-max --users 2 --slo p99=50ms", "--users"),
        ("--find-max --slo failure-ratio=1%", "latency"),
        ("--find-max --slo p99=50ms --slo throughput=9rps", "throughput"),
        ("--find-max --slo p99=50ms --within 0.1%", "--within"),
        ("--find-max --slo p90=50ms --scenario server", "p99"),
        ("--within 3%", "--find-max"),
        ("--search-time 3m", "--find-max"),
        ("--scenario server", "--rate"),
        ("--scenario server --rate 3 --arrivals constant", "--arrivals"),
        ("--scenario server --users 3", "--users"),
        ("--scenario single-stream --users 3", "--users"),
        ("--scenario offline --rate 3", "--rate"),
        ("--scenario multi-stream", "one image a request"),
        ("--order random", "cycle, sample"),
        ("--tolerance 5%", "--compare"),
        ("--price-per-hour 0", "--price-per-hour"),
        ("--triton 127.0.0.1:8001", "--protocol"),
        ("--protocol triton-http", "not the URL"),
        ("--protocol tcp", "triton-grpc"),
        ("--timeout soon", "soon"),
        ("--run-time 0s", "run time"),
        ("--processes 0", "processes"),
        ("--layers", "two targets"),
        ("http://127.0.0.1:9/serve/y --layers --sweep 1,2", "one load"),
        ("http://127.0.0.1:9/serve/y --layers --slo p99=50ms", "--slo"),
        ("triton-http://h/serve/y", "triton-http"),
        ("triton://h:8001/street_1", "triton-grpc://HOST:PORT/MODEL"),
        ("--slo p99=0ms", "no possible p99"),
        ("--cold-start", "--cold-start"),
        ("--force", "--cold-start"),
        ("--workers 2", "--master"),
        ("--master nowhere", "HOST:PORT"),
        ("--master 127.0.0.1:5557 --processes 2", "--processes"),
        ("--runs 2", "--worker"),
        ("--worker 127.0.0.1:5557", "no ENDPOINT"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_asked(
    arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 with a hint, before a server is asked or a folder is made."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert run(["loadtest", URL, "--images", ".", "--json", *arguments.split()]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in " ".join(error.values())
    assert error["hint"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "words"), [([], "ENDPOINT"), ([URL], "--images")])
def test_what_is_missing_is_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are optional to the parser, for --worker alone."""
    assert run(["loadtest", *arguments]) == 2
    assert f"Missing {'argument' if words == 'ENDPOINT' else 'option'} '{words}'" in capsys.readouterr().err


def test_endpoints_have_weights() -> None:
    """`NAME=3`; without one it is 1, and a URL may end in a query."""
    named = named_targets(["street=3", "people", "http://h/serve/x=0.5", "http://h/serve/x?a=1"])
    assert [(one.text, one.weight) for one in named] == [
        ("street", 3), ("people", 1), ("http://h/serve/x", 0.5), ("http://h/serve/x?a=1", 1),
    ]  # fmt: skip
    for texts, words in ((["street", "street=2"], "twice"), (["street=0"], "weight 0")):
        with pytest.raises(UsageError, match=words):
            named_targets(texts)


def test_triton_itself_is_a_target() -> None:
    """A version's model by its endpoint's name or its own, over either protocol, or a whole grpc:// address."""
    named = named_targets(["street/4=2", "street_4", "grpc://gpu:8001/street_4"])
    over_http = [target_of(one, protocol="triton-http", triton="http://gpu:8000/") for one in named[:2]]
    found = [(target.url, target.protocol, target.model, target.weight) for target in over_http if target is not None]
    assert found == [("gpu:8000", "triton-http", "street_4", 2), ("gpu:8000", "triton-http", "street_4", 1)]
    whole = target_of(named[2], protocol="endpoint", triton="")
    assert whole is not None
    assert (whole.url, whole.protocol, whole.model) == ("gpu:8001", "triton-grpc", "street_4")
    assert target_of(named[0], protocol="endpoint", triton="") is None
    with pytest.raises(UsageError, match="address of Triton"):
        target_of(named[0], protocol="triton-grpc", triton="")
    with pytest.raises(UsageError, match="is not one"):
        target_of(named_targets(["grpc://gpu:8001"])[0], protocol="endpoint", triton="")


def test_workers_are_awaited_by_a_master() -> None:
    """One unless told otherwise; an IPv6 address is in brackets."""
    assert awaited_workers(None, None, 1) is None
    one, two = awaited_workers("0.0.0.0:5557", None, 1), awaited_workers("[::1]:5558", 2, 1)
    assert one is not None
    assert two is not None
    assert (one.count, one.host, one.port, two.count, two.host, two.port) == (1, "0.0.0.0", 5557, 2, "::1", 5558)


def test_the_text_says_what_was_missed_and_by_how_much() -> None:
    """One line for each gate, in words that a person can act on, and none of them twice."""
    found = result([record(second, 10.0 * (second + 1)) for second in range(8)])
    verdicts = evaluate(found, [parse_gate("p50=1s"), parse_gate("p99=50ms")])
    text = run_text(found, verdicts, run_document(found, verdicts))
    assert "p90 80.0 ms" in text
    assert "MISSED      p99=50ms, measured 80ms: missed by 30 ms (60 %)" in text
    assert text.count("p99=50ms") == 1
    assert "reached     p50=1000ms, measured 40ms, at most 99.6 % sure" in text


def test_a_sweep_is_a_table_and_a_search_has_an_answer() -> None:
    """A line for each run, in columns; below it the rate, and what that rests on."""
    asked, gates = plan(run_time_s=30, warmup_s=0), [parse_gate("p99=50ms")]
    sweep = run_sweep(asked, (OpenLoop(rate_rps=20), OpenLoop(rate_rps=200)), gates, run=QueueModel(service_s=0.01))
    lines = series_text(sweep).splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:4] == ["load", "answered/s", "failed", "p50"]
    assert lines[1].startswith("20 requests/s ")
    assert lines[1].endswith("reached")
    assert "MISSED p99=50ms by" in lines[2]
    assert not sweep.passed
    assert sweep.decisive == 1
    search = find_max(asked, gates, run=QueueModel(service_s=0.01))
    assert search.highest is not None
    assert f"highest     {search.highest.holds_rps:g} requests/s hold p99=50ms" in series_text(search)
    assert search.highest.confidence in series_text(search)


def test_layers_are_a_table() -> None:
    """A line for each, the outermost first, and what it adds to the last one."""
    slow, fast = QueueModel(service_s=0.03), QueueModel(service_s=0.02)
    triton = Target(url="h:8001", protocol="triton-grpc", model="street_4")
    costs = measure_layers(
        plan(), (plan().targets[0], triton), run=lambda asked: (fast if asked.targets[0].model else slow)(asked)
    )
    lines = layers_text(costs).splitlines()
    assert lines[0].split() == ["layer", "p50", "added", "p99", "answered/s", "failed"]
    assert lines[1].split()[:4] == ["/serve/people/4", "30.0", "10.0", "30.0"]
    assert lines[2].startswith("triton-grpc street_4")
    assert len(lines) == 4


def test_a_limited_client_is_explained_below_a_table() -> None:
    """The word in the table says that, and a line below it why; of a sweep and of layers."""
    model = QueueModel(service_s=0.01)

    def limited(asked: LoadPlan) -> LoadResult:
        found = model(asked)
        return replace(found, client=replace(found.client, saturated=True, reason="it was busy"))

    sweep = run_sweep(plan(), (OpenLoop(rate_rps=20), OpenLoop(rate_rps=30)), [], run=limited)
    lines = series_text(sweep).splitlines()
    assert lines[1].endswith("client saturated")
    assert "warning     20 requests/s: it was busy" in lines
    triton = Target(url="h:8001", protocol="triton-grpc", model="street_4")
    costs = measure_layers(plan(), (plan().targets[0], triton), run=limited)
    assert layers_text(costs).splitlines()[-1] == "warning     triton-grpc street_4: it was busy"


def test_where_nothing_was_answered_it_is_said_once() -> None:
    """A failure without a text ends without a colon, and a gate without a number gives its reason."""
    found = result([record(1, 5, error="timeout")])
    verdicts = evaluate(found, [parse_gate("p99=50ms")])
    lines = run_text(found, verdicts, run_document(found, verdicts)).splitlines()
    assert "error       1 x timeout" in lines
    assert "MISSED      p99=50ms: nothing was measured" in lines


def test_a_scenario_has_a_line() -> None:
    """Its name and the number it is read by."""
    found = result([record(1, 5)])
    told = {**run_document(found, ()), "scenario": headline(scenario_of("single-stream"), found)}
    assert "scenario    single-stream: p90 5 ms" in run_text(found, (), told).splitlines()


def test_pictures_that_are_not_there_are_said_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Above all before a cold start, which takes a version away for a while."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tao2serve.cli.loadtest._find", lambda *_: pytest.fail("it was asked"))
    assert run(["loadtest", "street/4", "--images", str(tmp_path / "nowhere"), "--cold-start", "--json"]) == 3
    assert "does not exist" in json.loads(capsys.readouterr().out)["error"]["fact"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--users", "3"], "it was a closed loop, 2 users, and this is a closed loop, 3 users"),
        (["--users", "2", "--run-time", "5s"], "it ran for 10 s, and this for 5 s"),
    ],
)
def test_what_cannot_be_compared_is_not_measured(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An earlier run of another load: exit 2 before the load, and not 8 after it."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    old = write_report(result([record(1, 5)]), directory=tmp_path / "old").with_name("result.json")
    asked = ["loadtest", URL, "--images", str(pictures()[0]), "--run-time", "10s", "--compare", str(old), "--json"]
    assert run([*asked, *arguments]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["evidence"] == words


def test_cost_and_cold_start_are_below() -> None:
    """As far as they are there."""
    cold = {"load_s": 1.25, "requests_ms": [80.2, 20.9], "models": ["street_4"]}
    cost = {"per_1000_images": 0.0123456, "basis": "at the measured throughput"}
    assert more_text({"cost": cost, "cold_start": cold, "report": "r.html"}) == [
        "cost        0.01235 per 1,000 images, at the measured throughput",
        "cold start  loaded in 1.2 s; its first answers took 80, 21 ms",
        "report      r.html",
    ]
    assert more_text({"report": None}) == []


def test_a_run_of_an_open_loop_that_lost_requests_does_not_pass() -> None:
    """A rate that was not offered is said in the text, once, and not taken for a failure of the service."""
    found = replace(
        result([record(second / 2, 10) for second in range(20)]),
        plan=replace(plan(), shape=OpenLoop(rate_rps=20, arrivals="constant")),
    )
    verdicts = evaluate(found, [parse_gate("p99=50ms")])
    document = run_document(found, verdicts)
    assert document["passed"] is False
    assert run_text(found, verdicts, document).count("the rate was not offered: 20 requests were sent, about 200") == 1
