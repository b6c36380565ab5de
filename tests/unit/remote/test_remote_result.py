"""How a command ended that ran on a worker."""

from __future__ import annotations

import pytest

from tao2serve.errors import ServiceError
from tao2serve.remote.carried import VALUE
from tao2serve.remote.request import Given, described
from tao2serve.remote.run import RanOn, _result
from tao2serve.remote.submit import Submission

RAN_ON = RanOn(task_id="0123", queue="default", worker="gpu")
COMMAND = described("verify", [Given(option="", values=("a",), carried=VALUE)])


def test_a_command_that_was_killed_there_says_so() -> None:
    """Out of memory leaves no document: an error with the exit code of that, and no empty result."""
    submission = Submission(command=COMMAND, project="tao2serve", settings={})
    with pytest.raises(ServiceError, match="signal 9") as caught:
        _result(submission, RAN_ON, {"exit_code": 137, "stdout": ""})
    assert caught.value.exit_code == 137
    assert _result(submission, RAN_ON, {"exit_code": 8, "stdout": "{}"}).exit_code == 8
