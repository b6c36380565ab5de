"""The notebook and the client of examples/, run as a user runs them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from command_line import CommandLine
from documented import ROOT

from tao2serve.sandbox.samples import pictures

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
NOTEBOOK: Final = ROOT / "examples" / "detectnet_v2_to_endpoint.ipynb"
LARGEST_BYTES: Final = 250_000


def cells_of(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def executed(reader: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook after a run in a folder of its own, with no training and a sandbox that is up."""
    folder = tmp_path_factory.mktemp("notebook")
    environment = {
        **reader.environment, "HOME": str(folder), "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": "/tmp" if len(str(folder)) > 60 else str(folder),  # the sockets' paths have 107 bytes
    }  # fmt: skip
    command = replace(reader, environment=environment, folder=folder)
    script, output = ROOT / "tests" / "run_notebook.py", folder / "executed.ipynb"
    command.python(script, NOTEBOOK, output, timeout_s=500).assert_success()
    return output


def test_the_notebook_comes_to_a_served_endpoint(executed: Path) -> None:
    """Every cell runs: the endpoint answers with boxes, a picture is drawn, a load passes, the route comes back."""
    outputs = json.dumps([cell["outputs"] for cell in cells_of(executed)])
    assert '"output_type": "error"' not in outputs
    for said in ("tags detectnet_v2", "/serve/street", "person ", "image/jpeg", "0 failed", "now: version", "removed"):
        assert said in outputs, said


def test_the_notebook_in_the_repository_shows_a_real_run(executed: Path) -> None:
    """Its outputs are kept, small, and of the cells as they are: each that prints here has printed there."""
    assert NOTEBOOK.stat().st_size < LARGEST_BYTES
    kept = cells_of(NOTEBOOK)
    assert [cell["execution_count"] for cell in kept] == list(range(1, len(kept) + 1))
    silent = ("sandbox",)  # it was down when the kept outputs were made, and is up in this test
    for now, then in zip(cells_of(executed), kept, strict=True):
        if not any(word in "".join(now["source"]) for word in silent):
            assert bool(now["outputs"]) == bool(then["outputs"]), now["source"]


def test_the_client_asks_an_endpoint_with_requests_alone(
    reader: CommandLine, reader_endpoint: None, tmp_path: Path
) -> None:
    """It prints each object of each picture, and ends with 1 and the endpoint's words for what is no picture."""
    url = f"{reader.environment['TAO2SERVE_SERVING_BASE_URL']}/street"
    client = ROOT / "examples" / "client.py"
    answered = reader.python(client, url, *pictures()[:2]).assert_success()
    assert answered.stdout.count("objects, version") == 2
    assert "  car " in answered.stdout
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    refused = reader.python(client, url, tmp_path / "no.jpg")
    assert refused.code == 1
    assert "422" in refused.stderr
    assert "the body is no image" in refused.stderr
    imports = [line for line in client.read_text().splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].partition(".")[0] for line in imports}
    assert modules - set(sys.stdlib_module_names) == {"requests"}
