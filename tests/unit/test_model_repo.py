"""model_repo/ is what model_repo/regenerate.py writes."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from tao2serve.triton.repository import check_model

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repo"
REMEDY = "run: python model_repo/regenerate.py, and commit model_repo"
MODELS = ["street", "street_pictures", "street_pictures_detector", "street_pictures_postprocess",
          "street_pictures_preprocess"]  # fmt: skip


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
    """The repository as the script writes it today."""
    folder: Path = tmp_path_factory.mktemp("model_repo")
    script.regenerate(folder)
    return folder


def files_of(repository: Path) -> dict[str, bytes]:
    """By name, through links; a Triton that ran on the folder leaves __pycache__ in it, which git ignores."""
    found = [Path(place, name) for place, _, names in os.walk(repository, followlinks=True) for name in names]
    return {
        path.relative_to(repository).as_posix(): path.read_bytes()
        for path in found
        if path.parent != repository and "__pycache__" not in path.parts
    }


def test_links_lead_into_this_repository() -> None:
    """What is the same bytes is in git once, and a clone anywhere finds it."""
    links = [path for path in REPOSITORY.rglob("*") if path.is_symlink()]
    assert len(links) == 5
    for link in links:
        assert not link.readlink().is_absolute()
        assert link.resolve().is_relative_to(REPOSITORY.parent)


def test_the_committed_models_are_current(fresh: Path) -> None:
    """The committed files are those, and have the bytes, that the script writes from the sample's weights."""
    committed, expected = files_of(REPOSITORY), files_of(fresh)
    assert sorted(committed) == sorted(expected), REMEDY
    stale = [name for name, content in expected.items() if committed[name] != content]
    assert not stale, f"{', '.join(stale)}: out of date; {REMEDY}"


def test_both_placements_are_shown(fresh: Path) -> None:
    """One model for the placement `endpoint`, four for `ensemble`, and Triton can load each."""
    assert sorted(path.name for path in fresh.iterdir()) == MODELS
    for name in MODELS:
        check_model(fresh / name, name=name)


def test_the_readme_explains_every_file() -> None:
    """Each file's name is in the README, and the README shows no model that is not there."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for path in files_of(REPOSITORY):
        name = Path(path).name if "/runtime/" not in path else "runtime/"
        assert name in text, path
    shown = set(re.findall(r"^(street\w*)/", text, re.MULTILINE))
    assert shown == set(MODELS)


def test_regenerating_replaces_what_is_there(script: ModuleType, fresh: Path, tmp_path: Path) -> None:
    """Run over an older model, the script leaves the same bytes and nothing half-written."""
    older = tmp_path / "street" / "1" / "model.onnx"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"older")
    (tmp_path / "street" / "1" / "gone.txt").write_bytes(b"older")
    script.regenerate(tmp_path)
    assert files_of(tmp_path) == files_of(fresh)
