"""model_repo/ is what model_repo/regenerate.py writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repo"
FILES = ("1/model.onnx", "1/model.py", "config.pbtxt")
REMEDY = "run: python model_repo/regenerate.py, and commit model_repo/street_1"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regenerate", REPOSITORY / "regenerate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fresh(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder as the script writes it today."""
    folder: Path = script.regenerate(tmp_path_factory.mktemp("model_repo")).path
    return folder


def files_of(folder: Path) -> tuple[str, ...]:
    """A Triton that ran on the folder leaves __pycache__ in it, which git ignores."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(path.as_posix() for path in found if "__pycache__" not in path.parts))


def test_the_committed_model_is_complete(script: ModuleType) -> None:
    """config.pbtxt, 1/model.py and 1/model.onnx are there, and nothing besides."""
    assert files_of(REPOSITORY / script.NAME) == FILES, REMEDY


def test_the_script_writes_these_files(fresh: Path) -> None:
    """The script writes the three files that are compared, and nothing besides."""
    assert files_of(fresh) == FILES


@pytest.mark.parametrize("name", FILES)
def test_the_committed_file_is_current(script: ModuleType, fresh: Path, name: str) -> None:
    """Each committed file has the bytes that the script writes from the sample's weights."""
    committed = REPOSITORY / script.NAME / name
    assert committed.is_file(), f"{name} is missing; {REMEDY}"
    assert committed.read_bytes() == (fresh / name).read_bytes(), f"{name} is out of date; {REMEDY}"


def test_regenerating_replaces_what_is_there(script: ModuleType, tmp_path: Path) -> None:
    """Run again, also over an older model, the script leaves the same bytes and nothing half-written."""
    first = script.regenerate(tmp_path).path
    expected = {name: (first / name).read_bytes() for name in FILES}
    (first / "1" / "model.onnx").write_bytes(b"older")
    second = script.regenerate(tmp_path).path
    assert {name: (second / name).read_bytes() for name in FILES} == expected
    assert [path.name for path in tmp_path.iterdir()] == [script.NAME]
