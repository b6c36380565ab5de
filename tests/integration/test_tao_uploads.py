"""A training that TAO's ClearML hook reports ends with its model on ClearML's file server, not at a path of its own."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from command_line import CommandLine

from tao2serve.sandbox.samples import SAMPLE

pytestmark = pytest.mark.integration

# Plays `detectnet_v2 train` as far as ClearML sees it: the hook's Task.init, without output_uri, and a model that is
# saved (nvidia_tao_tf1/cv/common/mlops/clearml.py). The SDK is the real one. No code of NVIDIA's.
HOOK = """
import sys
from pathlib import Path
from clearml import OutputModel, Task

given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
task = Task.init(project_name="tao uploads", task_name=given["-n"] + "_01/25/02_10:00:00", reuse_last_task_id=False,
                 continue_last_task=False, deferred_init=False, tags=["unpruned"])
weights = Path(given["-r"]) / "weights" / (given["-n"] + ".hdf5")
weights.parent.mkdir(parents=True, exist_ok=True)
weights.write_bytes(b"weights of " + given["-n"].encode())
model = OutputModel(task=task, name=given["-n"], framework="Keras")
model.update_weights(weights_filename=str(weights), auto_delete_file=False)
task.close()
"""
# What clearml.conf of a container lacks, but that the reporter is a thread: as a process it takes seconds to end.
CONF = "sdk { development { report_use_subprocess: false, vcs_repo_detect_async: false } }"
URLS = """
import json
from clearml import Model
print("URLS " + json.dumps({m.name: m.url for m in Model.query_models(project_name="tao uploads")}))
"""


def test_the_models_of_a_tracked_run_are_uploaded(sandbox: CommandLine, tmp_path: Path) -> None:
    """With the variables that `tao train` hands on the weights are on the file server; the hook alone leaves a path."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "hook.py").write_text(HOOK)
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "clearml.conf").write_text(CONF)
    for name, words in (("python", [sys.executable]), ("detectnet_v2", [sys.executable, str(tmp_path / "hook.py")])):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (tools / name).chmod(0o755)
    variables = {
        **sandbox.environment, "PATH": f"{tools}:{os.environ['PATH']}",
        "CLEARML_CONFIG_FILE": str(tmp_path / "clearml.conf"),
    }  # fmt: skip
    line = CommandLine(environment=variables, folder=tmp_path)
    spec = SAMPLE / "unpruned" / "experiment_spec.txt"
    line.tao2serve("tao", "train", spec, "-r", tmp_path / "ours", "-n", "ours", "--skip-preflight").assert_success()
    (tmp_path / "alone").mkdir()
    alone = line._run([str(tools / "detectnet_v2"), "train", "-r", str(tmp_path / "alone"), "-n", "alone"], 120)
    alone.assert_success()
    said = line.python(tmp_path / "urls.py").assert_success().stdout
    urls = json.loads(said.partition("URLS ")[2].splitlines()[0])
    assert urls["ours"].startswith(variables["CLEARML_FILES_HOST"])
    assert urls["alone"].startswith("file://")
