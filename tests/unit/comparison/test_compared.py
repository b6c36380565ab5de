"""Models side by side: the table, what follows from it, the plot, and how they are run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comparison_samples import compared, comparison
from results_folders import copied

from tao2serve.comparison.candidates import find_candidates
from tao2serve.comparison.compared import columns_of, sentence, table_of
from tao2serve.comparison.measure import BATCH, FEWEST, WARM_UP, Contender, _in_turns, measure
from tao2serve.comparison.run import _measured
from tao2serve.errors import InputError, UsageError
from tao2serve.export.convert import export_onnx
from tao2serve.registry.trained import Selectors
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.steps import Steps

PRUNED = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))
UNPRUNED = next((SAMPLE / "unpruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))


def test_the_table_has_a_column_for_each_and_a_row_for_each_class() -> None:
    """Precision by class, sizes and speed; what one lacks is a dash, what all lack is no row."""
    two = comparison(compared("A", mean=0.9, latency_ms=10), compared("B", mean=0.95, latency_ms=None))
    rows = dict(table_of(two))
    assert columns_of(two) == ["A  model_A", "B  model_B"]
    assert rows["mAP in %"] == ["90.00", "95.00"]
    assert rows["AP in %, person"] == ["89.00", "94.00"]
    assert rows["parameters"] == ["313,887", "313,887"]
    assert rows["latency, ms"] == ["10.00", "–"]
    assert "model id" not in rows


def test_what_follows_is_said() -> None:
    """The most accurate and the fastest, and what one costs in the other; nothing without both numbers."""
    both = comparison(compared("A", mean=0.95, latency_ms=10), compared("B", mean=0.93, latency_ms=5))
    assert sentence(both) == "A is the most accurate; B takes 0.50 of its time here for 2.00 points of mAP less"
    one = comparison(compared("A", mean=0.9, latency_ms=10), compared("B", mean=0.93, latency_ms=5))
    assert sentence(one) == "B is the most accurate and the fastest here"
    assert sentence(comparison(compared("A", mean=0.9, latency_ms=10), compared("B", mean=None, latency_ms=5))) == ""


def test_what_varied_more_than_it_differs_is_not_called_faster() -> None:
    """Where the quartiles of the ratios overlap, on a busy machine or of one model twice, none is the fastest."""
    first = compared("A", mean=0.95, latency_ms=10)
    one = comparison(first, compared("B", mean=0.96, latency_ms=9.9))
    assert sentence(one) == "B is the most accurate; whether it is faster than A cannot be told here"
    other = comparison(first, compared("B", mean=0.93, latency_ms=9.9))
    assert sentence(other) == "A is the most accurate; whether B is faster cannot be told here"
    third = comparison(first, compared("B", mean=0.93, latency_ms=5), compared("C", mean=0.97, latency_ms=5.1))
    assert sentence(third) == "C is the most accurate; whether B is faster cannot be told here"


def test_the_plot_needs_two_models_with_both_numbers() -> None:
    """A model without latency or mAP has no place in it; the axes show all the others with their quartiles."""
    pytest.importorskip("plotly")
    from tao2serve.comparison.figure import accuracy_over_latency

    three = (compared("A", mean=0.95, latency_ms=10), compared("B", mean=0.93, latency_ms=5),
             compared("C", mean=None, latency_ms=1))  # fmt: skip
    figure = accuracy_over_latency(comparison(*three))
    assert [trace.name.split()[0] for trace in figure.data] == ["A", "B"]
    assert [(trace.x[0], trace.y[0]) for trace in figure.data] == [(10, 95), (5, 93)]
    low, high = figure.layout.yaxis.range
    assert low < 93 < 95 < high
    assert figure.layout.xaxis.range[1] > 12
    assert accuracy_over_latency(comparison(*three[1:])) is None


def test_a_letter_stands_away_from_the_nearest_model() -> None:
    """Of two that are near each other the upper one's is above and the lower one's below; of equals in turns."""
    pytest.importorskip("plotly")
    from tao2serve.comparison.figure import accuracy_over_latency

    four = [compared(letter, mean=mean, latency_ms=ms) for letter, mean, ms in (
        ("A", 0.95, 12.2), ("B", 0.96, 10.2), ("C", 0.95, 10.8), ("D", 0.96, 7.6),
    )]  # fmt: skip
    figure = accuracy_over_latency(comparison(*four))
    sides = {trace.name[0]: trace.textposition.split()[0] for trace in figure.data}
    assert (sides["B"], sides["C"]) == ("top", "bottom")
    twins = accuracy_over_latency(comparison(*(compared(x, mean=0.9, latency_ms=9) for x in "AB")))
    assert {trace.textposition.split()[0] for trace in twins.data} == {"top", "bottom"}


def test_models_run_in_turns(tmp_path: Path) -> None:
    """Every model has as many turns as the others; the same model twice is about as fast as itself."""
    artifact = export_onnx(PRUNED, output=tmp_path / "model.onnx")
    contender = Contender(name="model", path=artifact.path, signature=artifact.signature)
    news: list[str] = []
    one, other = measure([contender, contender], seconds=0.05, on_news=news.append)
    assert one.turns == other.turns >= FEWEST
    assert one.batch == BATCH
    assert one.of_first == 1
    assert 0.2 < other.of_first < 5
    assert one.quartiles_ms[0] <= one.latency_ms <= one.quartiles_ms[1]
    assert one.throughput > 0
    assert "2 models" in news[0]


def test_a_model_that_does_not_run_says_why(tmp_path: Path) -> None:
    """The others are measured all the same, also if it came first, and if it is all there is."""
    whole = export_onnx(PRUNED, output=tmp_path / "model.onnx")
    broken = replace(whole, path=tmp_path / "broken.onnx")
    broken.path.write_bytes(whole.path.read_bytes()[:1000])
    models = [compared(letter, mean=0.9, latency_ms=None) for letter in "AB"]
    with Steps().step("run them in turns") as step:
        first, second = _measured(models, {"A": broken, "B": whole}, 0.05, step)
        assert (first.speed, bool(first.why_not)) == (None, True)
        assert second.speed is not None
        assert second.why_not == ""
        (alone,) = _measured(models[:1], {"A": broken}, 0.05, step)
        assert alone.speed is None


def test_each_turn_begins_with_another_model() -> None:
    """What the one before leaves in the caches falls on all alike."""
    order: list[str] = []
    runs = [lambda letter=letter: order.append(letter) for letter in "ABC"]  # type: ignore[misc]
    taken = _in_turns(runs, 0.0, "one picture at a time", lambda _: None)
    assert "".join(order[3 * WARM_UP :]) == "ABCBCACAB" * (FEWEST // 3)
    assert [len(times) for times in taken] == [FEWEST] * 3


def test_files_and_folders_are_candidates(tmp_path: Path) -> None:
    """A file in a results folder has the epoch and precision that lie beside it, a folder its best model."""
    folder = copied("unpruned", tmp_path / "unpruned")
    alone = tmp_path / "alone.hdf5"
    alone.write_bytes(PRUNED.read_bytes())
    names = [str(folder), str(PRUNED), str(alone)]
    found = find_candidates(names, Selectors(), directory=tmp_path / "fetched")
    assert [(one.letter, one.name, one.epoch) for one in found] == [
        ("A", "resnet10_street", 16), ("B", "resnet10_street_pruned", 10), ("C", "alone", None),
    ]  # fmt: skip
    assert found[1].mean_average_precision == pytest.approx(0.995938)
    assert found[2].mean_average_precision is None


def test_one_model_is_no_comparison(tmp_path: Path) -> None:
    """Fewer than two, files that are not there, and names beside selectors are refused, and say what to give."""
    with pytest.raises(UsageError, match="one model cannot be compared") as caught:
        find_candidates([str(PRUNED)], Selectors(), directory=tmp_path)
    assert "--compare A B" in caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        find_candidates([str(PRUNED), "nowhere/model.hdf5"], Selectors(), directory=tmp_path)
    with pytest.raises(UsageError, match="selected by"):
        find_candidates([str(PRUNED)], Selectors(project="street"), directory=tmp_path)
