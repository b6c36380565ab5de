"""The launcher's mounts file: what it says, which paths it covers, and what is wrong with a wrong one."""

from __future__ import annotations

import json
import stat
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tao2serve.errors import UsageError
from tao2serve.tao.mounts import Mounts, reach, read_mounts, user_mounts, write_mounts


def _file(folder: Path, document: Any) -> Path:
    path = folder / "mounts.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def _mounts(folder: Path, *pairs: tuple[str, str]) -> Mounts:
    """Mounts of folders below `folder`, which are created."""
    entries = [{"source": str(folder / source), "destination": destination} for source, destination in pairs]
    for source, _ in pairs:
        (folder / source).mkdir(parents=True, exist_ok=True)
    return read_mounts(_file(folder, {"Mounts": entries}))


def test_paths_translate_both_ways(tmp_path: Path) -> None:
    """A path below a mount has one in the container, and back; others have none."""
    mounts = _mounts(tmp_path, ("models", "/workspace/models"), ("models/deep", "/deep"))
    model = tmp_path / "models" / "run" / "model.tlt"
    assert mounts.inside(model) == PurePosixPath("/workspace/models/run/model.tlt")
    assert mounts.inside(tmp_path / "models" / "deep" / "x") == PurePosixPath("/deep/x")
    assert mounts.outside(PurePosixPath("/workspace/models/run/model.tlt")) == model
    assert mounts.inside(tmp_path / "models2") is None
    assert mounts.outside(PurePosixPath("/workspace/models2")) is None


def test_a_mount_may_hide_another(tmp_path: Path) -> None:
    """Where a deeper mount covers the place in the container, the file behind it is not there."""
    mounts = _mounts(tmp_path, ("data", "/work"), ("other", "/work/models"))
    assert mounts.inside(tmp_path / "data" / "models" / "a.tlt") is None
    assert mounts.inside(tmp_path / "data" / "a.tlt") == PurePosixPath("/work/a.tlt")
    assert mounts.outside(PurePosixPath("/work/models/a.tlt")) == tmp_path / "other" / "a.tlt"


def test_of_two_mounts_of_a_source_the_last_counts(tmp_path: Path) -> None:
    """As with the launcher, which hands them to Docker by source."""
    mounts = _mounts(tmp_path, ("data", "/first"), ("data", "/second"))
    assert mounts.inside(tmp_path / "data" / "x") == PurePosixPath("/second/x")
    assert mounts.outside(PurePosixPath("/first/x")) is None


def test_what_is_not_covered_is_added_alone(tmp_path: Path) -> None:
    """Only the file itself is added, under its own path, symlinks followed; what is covered adds nothing."""
    mounts = _mounts(tmp_path, ("data", "/work"))
    model = tmp_path / "model.tlt"
    model.touch()
    (tmp_path / "link.tlt").symlink_to(model)
    more, inside = reach(mounts, tmp_path / "link.tlt")
    assert inside == PurePosixPath(model.resolve())
    assert [mount.source for mount in more.mounts] == [tmp_path / "data", model]
    assert reach(more, model) == (more, inside)
    assert reach(mounts, tmp_path / "data" / "x") == (mounts, PurePosixPath("/work/x"))


def test_a_path_docker_cannot_mount(tmp_path: Path) -> None:
    """A colon would cut the mount in two."""
    with pytest.raises(UsageError, match="cannot be mounted"):
        reach(Mounts(), tmp_path / "a:b.tlt")


def test_what_is_written_reads_the_same_and_is_private(tmp_path: Path) -> None:
    """Written and read again nothing is lost, and nobody else may read the file."""
    (tmp_path / "data").mkdir()
    document = {
        "Mounts": [{"source": str(tmp_path / "data"), "destination": "/work"}],
        "Envs": [{"variable": "NGC_KEY", "value": "sec:ret"}, {"variable": "N", "value": 3}],
        "DockerOptions": {"shm_size": "16G", "ulimits": {"memlock": -1}, "user": "1000:1000"},
    }
    mounts = read_mounts(_file(tmp_path, document))
    written = tmp_path / "written.json"
    write_mounts(mounts, written)
    assert read_mounts(written) == mounts
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert json.loads(written.read_text())["DockerOptions"] == document["DockerOptions"]


@pytest.mark.parametrize(
    ("document", "fact"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no JSON object"),
        ({}, "has no field Mounts"),
        ({"Mounts": [], "Env": []}, "does not know: 'Env'"),
        ({"Mounts": None}, "Mounts that is no list"),
        ({"Mounts": [], "Envs": {}}, "Envs that is no list"),
        ({"Mounts": [{"source": "/tmp"}]}, "without source and destination: Mounts[0]"),
        ({"Mounts": ["/tmp:/tmp"]}, "without source and destination: Mounts[0]"),
        ({"Mounts": [{"source": "/no/such", "destination": "/x"}]}, "mounts a folder that does not exist"),
        ({"Mounts": [{"source": "/tmp\0", "destination": "/x"}]}, "has a mount that is no path"),
        ({"Mounts": [{"source": "~nobody-is-called-so/x", "destination": "/x"}]}, "has a mount that is no path"),
        ({"Mounts": [], "Envs": [{"variable": "KEY"}]}, "without variable and value: Envs[0]"),
        ({"Mounts": [], "DockerOptions": None}, "DockerOptions that are no object"),
        ({"Mounts": [], "DockerOptions": {"ipc": "host"}}, "the launcher refuses: 'ipc'"),
        (" " * (2 << 20), "is larger than"),
    ],
)
def test_wrong_files(tmp_path: Path, document: Any, fact: str) -> None:
    """Whatever would end the launcher in a traceback is a UsageError that names the file and the field."""
    path = _file(tmp_path, document)
    with pytest.raises(UsageError) as caught:
        read_mounts(path)
    assert fact in caught.value.fact
    assert caught.value.subject == str(path)
    assert caught.value.hint


def test_no_error_shows_the_value_of_a_variable(tmp_path: Path) -> None:
    """Variables for the container may be secrets."""
    path = _file(tmp_path, {"Mounts": [], "Envs": [{"variable": "A", "value": "sec:ret"}, {"value": "sec:ret"}]})
    with pytest.raises(UsageError) as caught:
        read_mounts(path)
    assert "sec:ret" not in str(caught.value.to_dict())


def test_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$LAUNCHER_MOUNTS wins over ~/.tao_mounts.json; without either there are no mounts; a named one must exist."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LAUNCHER_MOUNTS", raising=False)
    assert user_mounts() == Mounts()
    (tmp_path / ".tao_mounts.json").write_text(json.dumps({"Mounts": [{"source": "/", "destination": "/host"}]}))
    assert user_mounts().mounts[0].destination == PurePosixPath("/host")
    monkeypatch.setenv("LAUNCHER_MOUNTS", str(_file(tmp_path, {"Mounts": []})))
    assert user_mounts() == Mounts()
    monkeypatch.setenv("LAUNCHER_MOUNTS", str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="cannot be read"):
        user_mounts()
