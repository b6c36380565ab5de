"""What commands carry to a queue is read off their own signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tao2serve.cli import deploy, export, loadtest, verify
from tao2serve.cli.elsewhere import OWN, _carried, with_queue
from tao2serve.cli.main import run

FUNCTIONS = (export.export, verify.verify, deploy.deploy, loadtest.loadtest)
EXPECTED = {
    "export": {
        "model": {"source"},
        "input": {"spec", "clustering", "calibration_images", "calibration_cache", "images", "labels"},
        "output": {"output"},
        "kept": {"timing_cache"},
        "there": {"trtexec"},
    },
    "verify": {
        "model": {"reference", "candidate"},
        "input": {"images", "labels", "spec", "clustering"},
        "output": {"output"},
    },
    "deploy": {
        "model": {"source"},
        "input": {
            *("spec", "clustering", "tuned", "calibration_images", "calibration_cache", "weights", "image"),
            "gate_images",
        },
    },
    "loadtest": {"input": {"images", "compare"}, "output": {"output"}},
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_path_of_a_command_is_carried_as_it_is_meant(function: Callable[..., Any]) -> None:
    """Files go there, folders that are filled come back; nothing that is a path is forgotten."""
    found: dict[str, set[str]] = {}
    for name, carried in _carried(function).items():
        found.setdefault(carried.kind, set()).add(name)
    found.pop("value")
    assert found == EXPECTED[function.__name__]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_command_has_its_own_options_and_those_of_the_queue(function: Callable[..., Any]) -> None:
    """In their order, before --json; and it can still be called as without them."""
    parameters = list(inspect.signature(with_queue(function)).parameters)
    assert parameters == [*list(inspect.signature(function).parameters)[:-1], *OWN, "json_output"]


def test_options_of_a_queue_without_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """They would do nothing."""
    assert run(["export", "x.onnx", "--queue-wait", "5m"]) == 2
    assert "--queue NAME" in capsys.readouterr().err
