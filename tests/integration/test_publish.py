"""Which models in ClearML count as published, asked with the real SDK against the sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clearml_state import ClearML
from command_line import CommandLine

from tao2serve.sandbox.samples import SAMPLE

pytestmark = pytest.mark.integration
PRUNED = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))

SCRIPT = """
import json, pathlib, sys
from clearml import Model, OutputModel, StorageManager, Task
from tao2serve.registry.package import Package
from tao2serve.registry.publish import find_published, is_whole, remove_unfinished

folder = pathlib.Path(sys.argv[0]).parent
file = folder / "half_fp32.zip"
file.write_bytes(b"package")
package = Package(path=file, sha256="digest of the test", bytes=7)
task = Task.create(project_name="publishing", task_name="a run that was killed")
task.output_uri = True
model = OutputModel(task=task, name="half_fp32", framework="ONNX", tags=["tao2serve"])
model.set_all_metadata({"package_sha256": {"value": package.sha256, "type": "str"}})
seen = {"begun": str(model.url).rpartition("/")[2], "found while uploading": find_published(package) is not None}
arrived = str(model.url).rpartition("/")[0] + "/models/half_fp32.zip"
StorageManager.upload_file(str(file), arrived)
seen["arrived"] = StorageManager.exists_file(arrived)
seen["removed"] = list(remove_unfinished(task.id)) == [model.id]
seen["left"] = StorageManager.exists_file(arrived)

whole = OutputModel(task=task, name="half_fp32", framework="ONNX", tags=["tao2serve"])
whole.set_all_metadata({"package_sha256": {"value": package.sha256, "type": "str"}})
whole.update_weights(str(file), auto_delete_file=False, async_enable=False)
found = find_published(package)
seen["found once whole"] = found is not None and found.model_id == whole.id and found.reused
seen["removed though whole"] = list(remove_unfinished(task.id))
from clearml.storage.helper import StorageHelper
StorageHelper.get(whole.url).delete(whole.url)
seen["found without its file"] = find_published(package) is not None
by_path = OutputModel(task=task, name="by path", framework="ONNX", tags=["tao2serve"])
by_path.set_all_metadata({"package_sha256": {"value": package.sha256, "type": "str"}})
by_path.update_weights(register_uri=file.as_uri())
seen["found by path"] = find_published(package) is not None
seen["users file"] = file.read_bytes() == b"package"
print(json.dumps(seen))
"""


def test_only_what_is_whole_and_there_counts(sandbox: CommandLine, tmp_path: Path) -> None:
    """A half upload is none, and goes with its file; a whole one is found by its digest while its file is there."""
    script = tmp_path / "publish.py"
    script.write_text(SCRIPT, encoding="utf-8")
    seen = json.loads(sandbox.python(script).assert_success().stdout.splitlines()[-1])
    assert seen == {
        "begun": "uploading_file", "found while uploading": False, "arrived": True, "removed": True, "left": False,
        "found once whole": True, "removed though whole": [], "found without its file": False, "found by path": False,
        "users file": True,
    }  # fmt: skip


def test_without_a_storage_nothing_is_built_or_uploaded(sandbox: CommandLine, tmp_path: Path) -> None:
    """An output URI that is a folder of this machine: exit 5 with the remedy, no task, and the folder is not made."""
    before = len(ClearML(sandbox).tasks())
    local = CommandLine(
        environment={**sandbox.environment, "CLEARML_DEFAULT_OUTPUT_URI": f"file://{tmp_path}/store"},
        folder=sandbox.folder,
    )
    for plan in ((), ("--plan",)):
        outcome = local.tao2serve("deploy", PRUNED, "--endpoint", "nowhere", "--json", *plan)
        assert outcome.code == 5
        assert "CLEARML_DEFAULT_OUTPUT_URI" in outcome.document["error"]["hint"]
        assert outcome.document["step"] == "find the serving service"
    assert len(ClearML(sandbox).tasks()) == before
    assert not (tmp_path / "store").exists()
