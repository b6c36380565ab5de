"""What an export on a queue leaves here is what the export here would leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.errors import UsageError
from tao2serve.registry import cache
from tao2serve.remote.bring import bring_back
from tao2serve.remote.bundle import STORE, write_zip
from tao2serve.remote.carried import NEVER_OVER
from tao2serve.remote.request import Given, described
from tao2serve.steps import Step
from tao2serve.tao.source import sha256_of

CLUSTERING = "experiment_spec_clustering.txt"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))


def _bring(tmp_path: Path, *names: str, force: bool = False) -> None:
    """Bring back an export with these files into `o`, as one that was fetched before."""
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    for name in names:
        (made / name).write_text(f"new {name}")
    archive = write_zip(made, tmp_path / "output.zip")
    digest = sha256_of(archive)
    with cache.staged(STORE) as file:
        file.write(archive.read_bytes())
        file.keep(STORE.folder / digest)
    output = Given(option="-o", values=(str(tmp_path / "o"),), carried=NEVER_OVER)
    command = described("export", [output], force=force)
    bring_back(command, {"output-00": {"uri": "https://files/o.zip"}}, {"output-00": digest}, _silent())


def _silent() -> Step:
    return Step(name="", watch=lambda _: None)


def test_a_clustering_file_of_another_export_is_in_the_way(tmp_path: Path) -> None:
    """One that came up while the export ran: nothing is written; with --force it is taken away."""
    old = tmp_path / "o" / CLUSTERING
    old.parent.mkdir()
    old.write_text("old")
    with pytest.raises(UsageError, match="would change the clustering"):
        _bring(tmp_path, "model.onnx", "experiment_spec.txt")
    assert [path.name for path in old.parent.iterdir()] == [CLUSTERING]
    _bring(tmp_path, "model.onnx", "experiment_spec.txt", force=True)
    assert sorted(path.name for path in old.parent.iterdir()) == ["experiment_spec.txt", "model.onnx"]


def test_without_a_spec_it_stays_and_with_one_of_its_own_it_is_replaced(tmp_path: Path) -> None:
    """As the export here has it: without --force other content is not replaced."""
    old = tmp_path / "o" / CLUSTERING
    old.parent.mkdir()
    old.write_text("old")
    _bring(tmp_path, "model.onnx", force=True)
    assert old.read_text() == "old"
    with pytest.raises(UsageError, match="with other content"):
        _bring(tmp_path, "experiment_spec.txt", CLUSTERING)
    _bring(tmp_path, "experiment_spec.txt", CLUSTERING, force=True)
    assert old.read_text() == f"new {CLUSTERING}"
