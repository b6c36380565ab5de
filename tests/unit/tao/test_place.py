"""Runs of TAO, planned: commands, mounts and variables for each of the three ways, and no secret among the words."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from tao2serve.errors import UsageError
from tao2serve.tao import subtask as tao
from tao2serve.tao.mounts import Mount, Mounts
from tao2serve.tao.place import WAYS, Place, TaoPlan, Way, plan_run, with_own_user
from tao2serve.tao.subtask import Subtask

SECRET = "sekret"
TRACKED = (("CLEARML_API_SECRET_KEY", SECRET), ("CLEARML_DEFAULT_OUTPUT_URI", "https://files"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("data/results", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "spec.txt").touch()
    return tmp_path / "data"


def plan(data: Path, way: Way, *, has_key: bool = False, task: Subtask | None = None, own: str = "{}") -> TaoPlan:
    mounts = Mounts(
        mounts=(Mount(source=data, destination=PurePosixPath("/workspace/data")),),
        environment=(("OWN", "theirs"),), docker_options=own,
    )  # fmt: skip
    place = Place(way=way, program=Path("/bin/program"), mounts=mounts, environment=TRACKED)
    results = data / "results"
    task = task or tao.train(data / "spec.txt", results=results, name="street", gpus=2, amp=True)
    return plan_run(task, place, results=results, folder=data.parent / "private", has_key=has_key, name="tao2serve-x")


TRAINING = ("train", "-e", "/workspace/data/spec.txt", "-r", "/workspace/data/results", "-n", "street")


def test_by_the_launcher(data: Path) -> None:
    """The launcher runs our script in the network's container; variables are in a mounts file that it is told of."""
    found = plan(data, "launcher", has_key=True)
    private = data.parent / "private"
    assert found.command == ("/bin/program", "model", "detectnet_v2", "run", "python", f"{private}/entry.py")
    assert found.inside == ("detectnet_v2", *TRAINING, "--gpus", "2", "--use_amp", "-k", "***")
    assert dict(found.environment) == {"LAUNCHER_MOUNTS": f"{private}/mounts.json"}
    assert dict(found.mounts.environment) == {
        "OWN": "theirs", **dict(TRACKED), "CLEARML_CACHE_DIR": f"{private}/clearml"
    }  # fmt: skip
    assert {str(mount.source) for mount in found.mounts.mounts} == {str(data), str(private)}


def test_by_docker(data: Path) -> None:
    """Options, mounts and image are on the command line, values of variables are not."""
    options = (
        '{"shm_size": "16G", "ulimits": {"memlock": -1}, "user": "1:2", "privileged": true, "ports": {"80": 8080}}'
    )
    found = plan(data, "docker", own=options)
    words = " ".join(found.command)
    assert words.startswith(
        "/bin/program run --rm --init --gpus all --name tao2serve-x --shm-size 16G --ulimit memlock=-1"
    )
    assert "--user 1:2 --privileged -p 8080:80" in words
    assert f"-v {data}:/workspace/data" in words
    assert "-e CLEARML_API_SECRET_KEY" in words
    assert words.endswith(f"nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5 python {data.parent}/private/entry.py")
    assert SECRET not in words
    assert found.environment["CLEARML_API_SECRET_KEY"] == SECRET
    assert found.inside[-1] != "***"


def test_inside(data: Path) -> None:
    """In TAO's own container paths are what they are, and nothing is mounted."""
    found = plan(data, "inside")
    assert found.command == ("/bin/program", f"{data.parent}/private/entry.py")
    assert found.arguments[1] == str(data / "spec.txt")
    assert dict(found.environment) == dict(TRACKED)
    assert found.image == ""


def test_the_deploy_container_builds_engines(data: Path) -> None:
    """gen_trt_engine is of NVIDIA's other container and of another module."""
    task = tao.gen_trt_engine(
        data / "spec.txt", spec=data / "spec.txt", results=data / "results", engine=data / "x.engine",
        options=tao.EngineOptions(data_type="int8", cal_image_dir=data, batches=3),
    )  # fmt: skip
    found = plan(data, "launcher", task=task)
    assert found.command[1] == "deploy"
    assert found.image.endswith("6.26.3-deploy")
    assert task.module == "nvidia_tao_deploy.cv.detectnet_v2.scripts.gen_trt_engine"
    assert found.arguments[-4:] == ("--cal_image_dir", "/workspace/data", "--batches", "3")


def test_no_secret_is_in_a_plans_text(data: Path) -> None:
    """What logs and tracebacks show of a place and a plan holds no value of a variable."""
    place = Place(way="docker", program=Path("docker"), environment=TRACKED)
    assert SECRET not in repr(place)
    assert SECRET not in repr([plan(data, way) for way in WAYS])


def test_what_cannot_be_done_is_said(data: Path) -> None:
    """An option of the command that a key keeps from being run is refused, and a folder with a blank."""
    task = tao.train(data / "spec.txt", results=data / "results", name="x", more=("--gpu_index", "1"))
    plan(data, "docker", task=task)
    with pytest.raises(UsageError, match="--gpu_index is an option of NVIDIA's command"):
        plan(data, "docker", task=task, has_key=True)
    blank = data.parent / "with blank"
    blank.mkdir()
    place = Place(way="launcher", program=Path("tao"))
    with pytest.raises(UsageError, match="quotes nothing"):
        plan_run(task, place, results=data, folder=blank, has_key=False, name="x")


def test_the_users_own_options_stay() -> None:
    """A user and a network that are named stay; the network is this machine's only where that is asked for."""
    assert '"network"' not in with_own_user(Mounts()).docker_options
    assert '"network": "host"' in with_own_user(Mounts(), host_network=True).docker_options
    own = with_own_user(Mounts(docker_options='{"network": "mine", "user": "7:7", "tty": false}'), host_network=True)
    assert own.docker_options == '{"network": "mine", "user": "7:7"}'
