"""Which way to TAO is taken, and by which program."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tao2serve.errors import ToolError
from tao2serve.tao.way import find_place, find_program, find_way

Program = Callable[..., Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes a program on a PATH that has nothing else, for a user without mounts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("TAO_DOCKER_DISABLE", "LAUNCHER_MOUNTS"):
        monkeypatch.delenv(name, raising=False)

    def make(name: str, first_line: str = "#!/bin/sh") -> Path:
        (folder / name).write_text(f"{first_line}\n")
        (folder / name).chmod(0o755)
        return folder / name

    return make


def test_the_nearest_way_is_taken(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """TAO around us before a launcher, a launcher before docker; another image than NVIDIA's is docker's alone."""
    assert (find_way(None), find_program("docker", None), find_place(None)) == ("docker", None, None)
    docker = program("docker")
    assert (find_way(None), find_program("docker", None)) == ("docker", docker)
    launcher = program("tao")
    assert (find_way(None), find_program("launcher", None)) == ("launcher", launcher)
    assert find_way(None, image="mine:1") == "docker"
    with pytest.raises(ToolError, match="is no program"):
        find_way(Path("nowhere/tao"))
    monkeypatch.setenv("TAO_DOCKER_DISABLE", "1")
    assert find_way(None) == "inside"
    monkeypatch.delenv("TAO_DOCKER_DISABLE")
    program("detectnet_v2")
    assert find_way(launcher) == "inside"


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        ("#!{folder}/python3.8", "python3.8"),
        ("#!{folder}/python3.8 -s", "python3.8"),
        ("#!/usr/bin/env python3.8", "python3.8"),
        ("#!/usr/bin/env", "python"),
        ("#!/bin/sh", "python"),
        ("#!/nowhere/python3.8", "python"),
        ("\x7fELF", "python"),
        ("", "python"),
    ],
)
def test_taos_python_is_that_of_its_command(program: Program, first_line: str, expected: str) -> None:
    """An agent's own Python may be first on PATH; what detectnet_v2 does not say is left to PATH."""
    folder = program("python").parent
    program("python3.8")
    program("detectnet_v2", first_line.format(folder=folder))
    assert find_program("inside", None) == folder / expected


def test_a_container_gets_the_users_mounts_and_tao_itself_none(program: Program, tmp_path: Path) -> None:
    """As this user, where a container is started; inside one, paths are what they are."""
    (tmp_path / ".tao_mounts.json").write_text(f'{{"Mounts": [{{"source": "{tmp_path}", "destination": "/w"}}]}}')
    program("docker")
    place = find_place(None)
    assert place is not None
    assert place.way == "docker"
    assert [mount.source for mount in place.mounts.mounts] == [tmp_path]
    assert f'"user": "{os.getuid()}:{os.getgid()}"' in place.mounts.docker_options
    program("detectnet_v2")
    assert find_place(None) is None  # and no Python to run it
    program("python")
    inside = find_place(None)
    assert inside is not None
    assert (inside.way, inside.mounts.mounts) == ("inside", ())
