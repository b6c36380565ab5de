"""Comparing with an earlier run: what may be compared, what is worse, and what may be noise."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loadtest_samples import record, result

from tao2serve.errors import InputError, UsageError
from tao2serve.loadtest import ClosedLoop, LoadResult, OpenLoop, Target
from tao2serve.loadtest.compare import Comparison, compare, compare_with
from tao2serve.loadtest.earlier import measured_of, read_earlier
from tao2serve.loadtest.noise import percentile_change, throughput_change
from tao2serve.loadtest.plan import digest_of
from tao2serve.loadtest.report import write_report


def measured(factor: float = 1.0, *, count: int = 1000, seed: int = 1, failures: int = 0) -> LoadResult:
    """A run of 10 s whose latencies lie around 20 ms times the factor."""
    draw = random.Random(seed)
    answered = [record(index * 10 / count, factor * draw.gauss(20, 2)) for index in range(count)]
    return result([*answered, *(record(5, 1, error="timeout") for _ in range(failures))])


def judged(old: LoadResult, new: LoadResult, **options: Any) -> Comparison:
    return compare(
        old.to_dict(), new.to_dict(), old_measured=measured_of(old), new_measured=measured_of(new), **options
    )


def test_the_same_again_is_no_regression() -> None:
    """Two runs of the same service pass, and their change is within the noise."""
    found = judged(measured(seed=1), measured(seed=2))
    assert found.passed
    assert found.differences == ()
    p50 = next(change for change in found.changes if change.metric == "p50")
    assert p50.noise == "may be noise"
    assert p50.interval is not None
    assert p50.interval[0] < 0 < p50.interval[1]


def test_a_slower_service_is_a_regression() -> None:
    """20 % more latency is worse than the default of 10 %, by the number and beyond the noise; 30 % may be allowed."""
    found = judged(measured(), measured(1.2, seed=2))
    assert [change.metric for change in found.regressions] == ["p50", "p99"]
    assert found.is_comparable
    assert not found.passed
    assert found.regressions[0].change_ratio == pytest.approx(0.2, abs=0.03)
    assert found.regressions[0].noise == "beyond noise"
    assert "p50 +2" in str(found)
    assert judged(measured(), measured(1.2, seed=2), tolerance=0.3).passed


def tailed(seed: int, factor: float = 1.0, count: int = 600) -> LoadResult:
    """Latencies with a long tail, which a p99 of some hundred requests feels."""
    draw = random.Random(seed)
    return result([record(index * 10 / count, factor * 20 * draw.lognormvariate(0, 0.3)) for index in range(count)])


def test_equal_servers_rarely_regress() -> None:
    """Of 40 pairs of runs of the same server, some p99 are worse by more than 10 %, and hardly any is a regression."""
    pairs = [judged(tailed(seed), tailed(seed + 1000)) for seed in range(40)]
    doubtful = [found for found in pairs if any(change.is_doubtful for change in found.changes)]
    assert doubtful
    assert all(found.passed and "worse, but may be noise: p99 +" in str(found) for found in doubtful)
    assert sum(not found.passed for found in pairs) <= 2
    assert not judged(tailed(1), tailed(2, 1.5)).passed


def test_what_a_verdict_rests_on_is_said() -> None:
    """With too few requests for an interval the number alone judges, and that is in document and text."""
    few = judged(tailed(1, count=300), tailed(2, 1.5, count=300))
    told = {change["metric"]: change for change in few.to_dict()["changes"]}  # type: ignore[attr-defined]
    assert [told[name]["judged_by"] for name in ("p50", "p99", "p95")] == ["number and noise", "number alone", ""]
    assert told["p99"]["regression"]
    assert "judged by the number alone, its noise is not known" in str(few)


def test_a_faster_service_is_none() -> None:
    """A change for the better is no regression, however large."""
    assert judged(measured(), measured(0.5)).passed


def test_throughput_and_failures_are_judged_too() -> None:
    """Fewer answers per second, or a percentage point more failures, are worse whatever the latency."""
    fewer = judged(measured(), measured(count=850))
    assert [change.metric for change in fewer.regressions] == ["throughput"]
    failing = judged(measured(), measured(failures=20))
    assert [change.metric for change in failing.regressions] == ["failure-ratio"]


def test_nothing_measured_any_more_is_worse() -> None:
    """A run without one answer never passes beside one that had some; the other way round nothing is known."""
    silent = result([record(1, 5, error="timeout")])
    assert "p99" in [change.metric for change in judged(measured(), silent).regressions]
    assert judged(silent, measured()).passed


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"shape": ClosedLoop(users=3)}, "load"),
        ({"shape": OpenLoop(rate_rps=20)}, "load"),
        ({"run_time_s": 20.0}, "run time"),
        ({"targets": (Target(url="http://127.0.0.1:8080/serve/cars/4"),)}, "endpoint"),
        ({"targets": (Target(url="127.0.0.1:8001", protocol="triton-grpc", model="people_4"),)}, "endpoint"),
    ],
)
def test_what_makes_two_runs_incomparable(change: dict[str, Any], name: str) -> None:
    """Another load, run time or endpoint is named first, and such a comparison passes no gate."""
    old = measured()
    found = judged(old, replace(old, plan=replace(old.plan, **change)))
    assert found.differences[0].name == name
    assert not found.is_comparable
    assert not found.passed
    assert f"differ in {name}" in str(found)


@pytest.mark.parametrize("name", ["images", "images_digest", "cpu_model", "cpu_count", "serving_cpu", "gpu"])
def test_other_hardware_or_images_are_incomparable(name: str) -> None:
    """What the environment says of images and hardware must be the same."""
    old = replace(measured(), environment={name: "one"})
    assert not judged(old, replace(old, environment={name: "two"})).is_comparable


def test_what_is_not_known_is_not_called_alike(tmp_path: Path) -> None:
    """Hardware and versions that only one run knows, or none, may differ: document and page say which."""
    told = {"serving_cpu": "EPYC", "gpu": "NVIDIA A10", "triton": "2.51.0"}
    bare, known = measured(), replace(measured(), environment=told)
    assert judged(known, known).unknown == ()
    assert judged(bare, known).unknown == judged(bare, bare).unknown == ("CPU that serves", "GPU", "version of Triton")
    assert judged(known, replace(known, environment={**told, "gpu": ""})).to_dict()["unknown"] == ["GPU"]
    page = write_report(bare, directory=tmp_path, comparison=judged(bare, known)).read_text(encoding="utf-8")
    assert "so it may differ: CPU that serves, GPU, version of Triton." in page
    assert judged(known, replace(known, environment={**told, "triton": "2.60.0"})).passed


def test_what_is_random_is_in_the_document(tmp_path: Path) -> None:
    """Seed, order and processes can be repeated from a report, and another one is a difference that is shown."""
    old = measured()
    new = replace(
        old, plan=replace(old.plan, order="sample", seed=7), environment={**old.environment, "load_generators": "3"}
    )
    page = write_report(new, directory=tmp_path)
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (told["order"], told["seed"], told["processes"]) == ("sample", 7, 3)
    assert "<dt>Seed</dt><dd>7</dd>" in "".join(page.read_text(encoding="utf-8").split())
    found = {difference.name: (difference.old, difference.new) for difference in judged(old, new).differences}
    assert found["seed"] == ("1", "7")
    assert found["order of the images"] == ("cycle", "sample")
    assert found["processes"] == ("1", "3")


def test_images_are_known_by_their_content(tmp_path: Path) -> None:
    """Other bytes or another order give another digest, another name for the same does not."""
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, content in zip(paths, (b"1", b"2", b"1"), strict=True):
        path.write_bytes(content)
    one, two, again = paths
    assert digest_of([one, two]) == digest_of([again, two]) != digest_of([two, one])
    assert digest_of([one]) != digest_of([two])


def test_a_saturated_client_is_incomparable() -> None:
    """In either run, even in both."""
    old = measured()
    saturated = replace(old, client=replace(old.client, saturated=True, reason="busy"))
    for pair in ((old, saturated), (saturated, old), (saturated, saturated)):
        assert not judged(*pair).is_comparable


def test_versions_and_addresses_may_differ() -> None:
    """Another version of the endpoint, on another port, of another release: that is what one compares."""
    old = measured()
    plan = replace(old.plan, targets=(Target(url="http://127.0.0.1:9090/serve/people/5"),))
    found = judged(old, replace(old, plan=plan, environment={**old.environment, "locust": "9"}))
    assert found.passed
    assert [difference.name for difference in found.differences] == ["version", "address", "locust"]


def test_noise_without_single_requests_is_said_to_be_unknown() -> None:
    """Without requests.csv no interval is made up, and the sentence says which run lacks them."""
    found = compare(measured().to_dict(), measured(1.2).to_dict())
    assert all(change.interval is None for change in found.changes if change.metric != "throughput")
    assert "not known: the single requests of the earlier run" in found.noise
    assert "p99" in [change.metric for change in found.regressions]


def test_few_requests_give_no_interval_of_a_tail() -> None:
    """A 99th percentile of 300 requests rests on three: its noise is not known, that of the median is."""
    found = judged(measured(count=300), measured(count=300, seed=2))
    noise = {change.metric: change.noise for change in found.changes}
    assert noise["p99"] == noise["max"] == "not known"
    assert noise["p50"] != "not known"


def test_the_interval_holds_the_true_change() -> None:
    """Of 40 pairs of runs with 15 % between them, nearly all intervals hold 15 %, and all say so the same way again."""
    held = 0
    for seed in range(40):
        draw = random.Random(seed)
        old = [draw.gauss(20, 3) for _ in range(400)]
        new = [1.15 * draw.gauss(20, 3) for _ in range(400)]
        interval = percentile_change(old, new, 50)
        assert interval is not None
        held += interval[0] <= 0.15 <= interval[1]
        if seed == 0:
            assert interval == percentile_change(old, new, 50)
    assert held >= 34


def test_a_stall_widens_the_interval() -> None:
    """Slow requests that lie side by side are one event: the interval is wider than if they lay apart."""
    apart = [200.0 if index % 50 == 0 else 20.0 + index % 3 for index in range(2000)]
    together = sorted(apart, reverse=True)
    calm = [20.0 + index % 3 for index in range(2000)]
    wide, narrow = percentile_change(calm, together, 99), percentile_change(calm, apart, 99)
    assert wide is not None
    assert narrow is not None
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_throughput_needs_some_intervals() -> None:
    """The noise of a throughput is that of its seconds."""
    assert throughput_change([10, 11, 9, 10], [10, 11, 9, 10, 10]) is None
    interval = throughput_change([10, 11, 9, 10, 10], [20, 22, 18, 20, 20])
    assert interval is not None
    assert 0.8 < interval[0] <= 1 <= interval[1] < 1.2


def test_a_stalls_seconds_are_drawn_together() -> None:
    """Slow seconds side by side are one event: the throughput's interval is wider than if they lay apart."""
    apart = [5.0 if index % 5 == 0 else 20.0 for index in range(50)]
    calm = [20.0] * 50
    wide, narrow = throughput_change(calm, sorted(apart)), throughput_change(calm, apart)
    assert wide is not None
    assert narrow is not None
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_a_part_of_a_second_weighs_nothing() -> None:
    """The last interval of 5.5 s is half a one: it does not pull the interval of the throughput."""
    old = measured().to_dict() | {"run_time_s": 5.5}
    points = [{"start_s": float(second), "throughput_rps": 100.0} for second in range(5)]
    steady = old | {"series": {"interval_s": 1.0, "points": points}}
    cut = old | {"series": {"interval_s": 1.0, "points": [*points, {"start_s": 5.0, "throughput_rps": 1.0}]}}
    throughput = next(change for change in compare(steady, cut).changes if change.metric == "throughput")
    assert throughput.interval == (0, 0)


def test_files_are_compared_as_they_were_written(tmp_path: Path) -> None:
    """result.json and requests.csv of a report give the same as the results themselves; open loops by response time."""
    lags_s = [0.1 if index % 10 == 0 else 0.0 for index in range(1000)]
    late = [record(index * 0.0098 + lag, 20 + index % 7, lag_s=lag) for index, lag in enumerate(lags_s)]
    closed = measured()
    opened = replace(
        result(late), plan=replace(closed.plan, shape=OpenLoop(rate_rps=100)), client=closed.client
    )  # it is the records that are asked for, not what made them late
    for number, old in enumerate([closed, opened]):
        directory = tmp_path / str(number)
        write_report(old, directory=directory)
        document, found = read_earlier(directory / "result.json")
        assert document["requests"] == 1000
        assert found.latencies_ms == pytest.approx(measured_of(old).latencies_ms, abs=1e-4)
        compared = compare_with(directory / "result.json", old)
        assert compared.passed
        assert compared.to_dict()["source"] == str(directory / "result.json")
        assert all(change.change_ratio in (0, None) for change in compared.changes)


def test_requests_of_another_run_are_not_used(tmp_path: Path) -> None:
    """A requests.csv that does not fit, cannot be read or is missing makes the noise unknown, and no more."""
    write_report(measured(), directory=tmp_path)
    table = tmp_path / "requests.csv"
    for change, why in (
        (lambda: table.write_text("\n".join(table.read_text("utf-8").splitlines()[:-5]), "utf-8"), "not of the same"),
        (lambda: table.write_text("start_s\nnext\n", "utf-8"), "cannot be read"),
        (lambda: table.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (table.unlink, "No such file"),
    ):
        change()
        found = compare_with(tmp_path / "result.json", measured())
        assert why in found.noise
        assert found.passed


TARGET = {"url": "http://h/serve/x", "protocol": "endpoint", "model": ""}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in measured(count=20).to_dict().items() if key != name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is no JSON"),
        ("[]", "can be compared"),
        ("{}", "it lacks requests"),
        (json.dumps({"runs": [], "requests": 1}), "several runs"),
        (json.dumps(without("shape")), "it lacks shape"),
        (json.dumps(without("latency_ms")), "it lacks latency_ms"),
        (json.dumps({**without(""), "latency_ms": {"p50": 1}}), "it lacks p90"),
        (json.dumps({**without(""), "requests": "many"}), "requests is 'many'"),
        (json.dumps({**without(""), "throughput_rps": float("nan")}), "throughput_rps is nan"),
        (json.dumps({**without(""), "failures": 10**6}), "more failures"),
        (json.dumps({**without(""), "targets": [{}]}), "it lacks url"),
        (json.dumps({**without(""), "targets": [TARGET | {"weight": "x"}]}), "weight of a target is 'x'"),
        (json.dumps({**without(""), "targets": [TARGET | {"url": "http://[h"}]}), "Invalid IPv6 URL"),
        (json.dumps({**without(""), "run_time_s": 10**400}), "run_time_s is a number beyond"),
        (json.dumps({**without(""), "client": {"saturated": "no"}}), "neither true nor false"),
        (json.dumps({**without(""), "series": {"points": [{"throughput_rps": 1}]}}), "it lacks start_s"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """What is no result of a load test says what it lacks, and by which version it was written."""
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_earlier(path)
    assert said in f"{caught.value} {caught.value.evidence}"
    assert str(path) in str(caught.value)


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    """What is larger than any result is refused before it is in memory."""
    path = tmp_path / "result.json"
    with path.open("wb") as stream:
        stream.truncate(2**31)  # sparse: no disk is filled
    with pytest.raises(InputError, match="larger than 64 MiB"):
        read_earlier(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is bad input."""
    with pytest.raises(InputError, match="cannot be read"):
        compare_with(tmp_path / "result.json", measured(count=20))


@pytest.mark.parametrize("tolerance", [-0.1, 1, float("nan")])
def test_a_tolerance_is_a_part_of_one(tolerance: float) -> None:
    """10 instead of 0.1 would let everything pass."""
    with pytest.raises(UsageError, match="tolerance"):
        judged(measured(count=20), measured(count=20), tolerance=tolerance)
