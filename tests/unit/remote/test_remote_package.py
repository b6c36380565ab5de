"""What is sent: the package itself, folders, and how a failure comes back."""

from __future__ import annotations

import ast
import sys
import zipfile
from pathlib import Path

import pytest

import tao2serve
from tao2serve import errors
from tao2serve.errors import ServiceError, Tao2ServeError
from tao2serve.remote import bootstrap
from tao2serve.remote.bundle import unpack, write_zip
from tao2serve.remote.errors import error_of
from tao2serve.remote.wheel import write_wheel

PACKAGE = Path(tao2serve.__file__).parent


def test_the_wheel_is_this_very_installation(tmp_path: Path) -> None:
    """Unpacked it has the digest by which a worker knows the package; made twice it is the same file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    wheel = write_wheel(tmp_path / "a")
    assert wheel.read_bytes() == write_wheel(tmp_path / "b").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "there")
        names = archive.namelist()
    assert bootstrap.package_digest(tmp_path / "there" / "tao2serve") == bootstrap.package_digest(PACKAGE)
    assert any(name.endswith(".dist-info/METADATA") for name in names)
    assert wheel.name == f"tao2serve-{tao2serve.__version__}-py3-none-any.whl"


def test_the_script_knows_what_is_wanted_and_an_older_python_reads_it() -> None:
    """It is sent with the package's description in it, and has no syntax that Python 3.8 has not."""
    wanted = {"digest": "0" * 64, "extras": ["loadtest"], "modules": ["locust"], "wheel": "it's.whl"}
    text = bootstrap.script(wanted)
    tree = ast.parse(text, feature_version=(3, 8))
    (value,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WANTED"
    ]
    assert isinstance(value, ast.Constant)
    assert "it's.whl" in str(value.value)
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules <= set(sys.stdlib_module_names)


def test_this_installation_is_one_that_is_prepared() -> None:
    """Where the same package is installed nothing is installed; another digest or a missing extra asks for it."""
    wanted = {"digest": bootstrap.package_digest(PACKAGE), "modules": ["numpy"]}
    assert bootstrap.prepared(wanted)
    assert not bootstrap.prepared({**wanted, "digest": "0" * 64})
    assert not bootstrap.prepared({**wanted, "modules": ["no_such_module"]})


def test_a_folder_is_one_file_whenever_it_is_packed(tmp_path: Path) -> None:
    """Names, order and content make the file, not times; unpacked it is the folder."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "b.jpg").write_bytes(b"b")
    (folder / "a.jpg").write_bytes(b"a")
    first = write_zip(folder, tmp_path / "1.zip").read_bytes()
    (folder / "a.jpg").touch()
    assert write_zip(folder, tmp_path / "2.zip").read_bytes() == first
    unpack(tmp_path / "2.zip", tmp_path / "there")
    assert (tmp_path / "there" / "more" / "b.jpg").read_bytes() == b"b"


def test_an_archive_stays_in_its_folder(tmp_path: Path) -> None:
    """A name that leads out of it is refused."""
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../outside", "x")
    with pytest.raises(ServiceError, match="leads out"):
        unpack(tmp_path / "bad.zip", tmp_path / "there")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_a_failure_there_is_the_same_failure_here(kind: type[Tao2ServeError]) -> None:
    """Class, exit code, parts, step, aftermath and further members; the log of the other machine is left out."""
    parts = {"subject": "a", "fact": "b", "evidence": "c", "hint": "d", "log": "/there"}
    document = {"outcome": "error", "exit_code": kind.exit_code, "error": parts, "step": "s", "aftermath": "t", "n": 1}
    error = error_of(document, ran_on={"worker": "w"})
    assert type(error) is kind
    assert error.to_dict() == {**parts, "log": ""}
    assert (error.step, error.aftermath, error.details) == ("s", "t", {"n": 1, "ran_on": {"worker": "w"}})
