"""Pruned or not, and the spec among what a task holds."""

from __future__ import annotations

import pytest

from tao2serve.registry.lineage import parse_spec, pruned, schedule, spec_text
from tao2serve.sandbox.samples import SAMPLE

PRUNED = (SAMPLE / "pruned" / "experiment_spec.txt").read_text()
UNPRUNED = (SAMPLE / "unpruned" / "experiment_spec.txt").read_text()


def test_taos_spec_is_believed_over_tags_and_names() -> None:
    """load_graph decides, a tag against it is shown as such; without a spec tags come before names."""
    verdict, evidence = pruned(parse_spec(PRUNED), tags=("unpruned",), names=("resnet10",))
    assert verdict is True
    assert evidence[0].startswith("spec: load_graph true, pretrained_model_file /workspace")
    assert evidence[1] == "against it: tag unpruned"
    assert pruned(parse_spec(UNPRUNED), tags=(), names=())[0] is False
    assert pruned(None, tags=("pruned",), names=("run_unpruned",)) == (
        True, ("tag pruned", "against it: name run_unpruned"),
    )  # fmt: skip
    assert pruned(None, tags=(), names=("resnet",)) == (None, ())


@pytest.mark.parametrize("broken", ["", "model_config {", "hello", "model_config { load_graph: true }"])
def test_what_is_no_spec_says_nothing(broken: str) -> None:
    """A text that cannot be read as a spec is no evidence, and no error."""
    assert pruned(parse_spec(broken), tags=(), names=()) == (None, ())


def test_the_spec_is_found_by_name_or_by_what_it_is() -> None:
    """TAO's hook keeps no spec and users name theirs as they like; names that are known come first."""
    assert spec_text({"my spec": {"value": UNPRUNED}, "b": {"value": "other"}}) == UNPRUNED
    assert spec_text({"aaa": {"value": UNPRUNED}, "experiment_spec": {"value": PRUNED}}) == PRUNED
    for odd in (None, [], {"a": None}, {"a": {"value": 3}}, {"experiment_spec": {"value": " "}}):
        assert spec_text(odd) == ""


def test_when_a_run_evaluates() -> None:
    """The three numbers are the spec's, comments aside; TAO evaluates by the period, and after the last epoch."""
    when = schedule(UNPRUNED, completed=True)
    assert (when.epochs, when.period, when.first) == (16, 2, 2)
    commented = schedule("# num_epochs: 3\nnum_epochs: 25 # num_epochs: 4\nfirst_validation_epoch: 1", completed=False)
    assert (commented.epochs, commented.first) == (25, 1)
    when = schedule("num_epochs: 25\nvalidation_period_during_training: 10\nfirst_validation_epoch: 1", completed=True)
    assert [epoch for epoch in range(30) if when.evaluates(epoch)] == [1, 11, 21, 25]
