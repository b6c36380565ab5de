"""What a run of TAO needs, looked at on a machine that has none of it."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path, PurePosixPath

import pytest

from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao import preflight
from tao2serve.tao.mounts import Mount, Mounts
from tao2serve.tao.place import Place
from tao2serve.tao.preflight import PreflightCheck, check_key, check_machine, check_paths, check_spec_file, paths_in

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and a PATH with nothing on it but what a test puts there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("DOCKER_HOST", "DOCKER_CONFIG", "OVERRIDE_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(preflight, "_SOCKET", tmp_path / "docker.sock")
    for name in ("home/.docker", "bin"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def program(folder: Path, name: str, said: str, code: int = 0) -> None:
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    path.chmod(0o755)


def found(place: Place) -> dict[str, PreflightCheck]:
    return {check.name: check for check in check_machine(place, "model")}


LAUNCHER = Place(way="launcher", program=Path("tao"))
DOCKER = Place(way="docker", program=Path("docker"))


def test_nothing_is_here(bare: Path) -> None:
    """Each lack is wrong, with a remedy."""
    checks = found(LAUNCHER)
    assert {name: check.status for name, check in checks.items()} == {
        "GPU": "wrong", "Docker": "wrong", "Docker's socket": "wrong", "login": "wrong",
    }  # fmt: skip
    assert all(check.remedy for check in checks.values())
    assert "docker login nvcr.io" in checks["login"].remedy


def test_all_is_here(bare: Path) -> None:
    """A GPU, an engine, its socket and a login are ok."""
    program(bare, "nvidia-smi", "GPU 0: NVIDIA H100 (UUID: GPU-1)")
    program(bare, "docker", "27.0")
    (bare / "home" / ".docker" / "config.json").write_text(json.dumps({"auths": {"nvcr.io": {}}}))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(bare / "docker.sock"))
        checks = found(LAUNCHER)
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["GPU"].fact == "GPU 0: NVIDIA H100, 1 in all"


def test_dockers_own_ways(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is here needs no login; a credential helper is one, which the launcher would not see."""
    program(bare, "docker", "27.0")
    assert found(DOCKER)["image"].status == "ok"
    program(bare, "docker", "no such image", 1)
    config = bare / "home" / ".docker" / "config.json"
    config.write_text(json.dumps({"credHelpers": {"nvcr.io": "ngc"}}))
    assert found(DOCKER)["login"].status == "ok"
    assert found(LAUNCHER)["login"].status == "wrong"
    monkeypatch.setenv("DOCKER_HOST", "tcp://gpu:2376")
    assert found(DOCKER)["GPU"].status == "skipped"


def test_keys() -> None:
    """An encrypted model without a key is wrong; an open one needs none."""
    assert check_key("", [Path("m.tlt")]).status == "wrong"
    assert check_key("key", [Path("m.tlt")]).status == "ok"
    assert check_key("", [Path("m.hdf5")]).status == "ok"


def test_the_specs_files_through_the_mounts(tmp_path: Path) -> None:
    """Files no mount shows, or that are not there, are named by field and path; the others are counted."""
    text = (
        "dataset_config { data_sources { tfrecords_path: '/w/tf/*' image_directory_path: '/w/images' } }\n"
        "model_config { pretrained_model_file: '/elsewhere/m.hdf5' }"
    )
    spec = tmp_path / "spec.txt"
    spec.write_text(text)
    assert [path for _, path in paths_in(spec)] == ["/w/tf/*", "/w/images", "/elsewhere/m.hdf5"]
    (tmp_path / "data" / "tf").mkdir(parents=True)
    (tmp_path / "data" / "tf" / "x").touch()
    mounts = Mounts(mounts=(Mount(source=tmp_path / "data", destination=PurePosixPath("/w")),))
    place = Place(way="docker", program=Path("docker"), mounts=mounts)
    checks = list(check_paths(spec, place))
    assert [check.status for check in checks] == ["wrong", "wrong", "ok"]
    assert "/w/images, and nothing is there" in checks[0].fact
    assert "/elsewhere/m.hdf5, which no mount shows" in checks[1].fact
    assert [check.status for check in check_paths(spec, place, expected=("/elsewhere/m.hdf5",))] == ["wrong", "ok"]


def test_a_spec_that_tao_refuses(tmp_path: Path) -> None:
    """Errors of training are wrong here too, and so is what TAO refuses and serving takes."""
    sample = SAMPLE / "unpruned" / "experiment_spec.txt"
    served = check_spec_file(sample)  # with thresholds of DBSCAN above 1, which serving takes and TAO does not
    assert (served.status, "dbscan_confidence_threshold is 1.43" in served.evidence) == ("wrong", True)
    trained = tmp_path / "trained.txt"
    trained.write_text(re.sub(r"(dbscan_confidence_threshold: )1\.\d+", r"\g<1>0.9", sample.read_text()))
    assert check_spec_file(trained).status == "ok"
    broken = tmp_path / "spec.txt"
    broken.write_text(trained.read_text().replace("num_epochs: 16", "num_epochs: 0"))
    check = check_spec_file(broken)
    assert check.status == "wrong"
    assert "num_epochs" in check.evidence
    assert check.remedy == f"tao2serve spec check {broken}"
