"""GPU, TensorRT, OpenCV, NVIDIA's launcher and Docker: none is needed for a deployment on CPUs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tao2serve.config import Settings
from tao2serve.doctor.check import Check, Examination
from tao2serve.errors import ToolError
from tao2serve.export.engine.machine import import_tensorrt, read_machine, trtexec_version
from tao2serve.tao.launcher import LAUNCHER_VERSION, find_launcher
from tao2serve.tao.way import find_program, find_way

__all__ = ["machine_examinations"]

GPU: Final = "GPU"
TENSORRT: Final = "TensorRT"
OTHER: Final = "other"
_DRIVER: Final = Path("/proc/driver/nvidia/version")


def machine_examinations(settings: Settings) -> tuple[Examination, ...]:
    return (
        Examination(group=GPU, name="GPU", run=_gpu, limit_s=10.0),
        Examination(group=TENSORRT, name="tensorrt", run=_tensorrt, limit_s=20.0),
        Examination(group=OTHER, name="OpenCV", run=_opencv),
        Examination(group=OTHER, name="tao launcher", run=lambda: _launcher(settings.tao_launcher)),
        Examination(group=OTHER, name="Docker", run=_docker, limit_s=4.0),
    )


def _gpu() -> Iterator[Check]:
    here = read_machine()
    if here.gpu_name:
        yield Check(
            group=GPU,
            name="GPU",
            status="ok",
            fact=f"{here.gpu_name}, compute capability {here.compute_capability}",
            evidence=f"driver {here.driver_version}, CUDA up to {here.cuda_version or 'unknown'}",
        )
    elif _DRIVER.is_file():
        yield Check(
            group=GPU, name="GPU", status="wrong", fact="a driver is loaded, and nvidia-smi shows no GPU",
            evidence=_DRIVER.read_text(encoding="utf-8", errors="replace").splitlines()[0],
            remedy="nvidia-smi   (and look at CUDA_VISIBLE_DEVICES)",
        )  # fmt: skip
    else:
        yield Check(
            group=GPU, name="GPU", status="missing", fact="none seen by nvidia-smi",
            evidence="models run on the CPU; engines are built and run on a machine with one",
        )  # fmt: skip


def _tensorrt() -> Iterator[Check]:
    module, trouble = import_tensorrt()
    if module is not None:
        yield Check(group=TENSORRT, name="tensorrt", status="ok", fact=f"package of version {module.__version__}")
    elif trouble:
        yield Check(
            group=TENSORRT, name="tensorrt", status="wrong", fact="is installed and cannot be imported",
            evidence=trouble, remedy="pip install --force-reinstall 'tao2serve[tensorrt]'",
        )  # fmt: skip
    else:
        yield Check(
            group=TENSORRT, name="tensorrt", status="missing", fact="package is not installed",
            remedy="pip install 'tao2serve[tensorrt]'   (where there is a GPU)",
        )  # fmt: skip
    program = shutil.which("trtexec")
    if program is None:
        yield Check(group=TENSORRT, name="trtexec", status="missing", fact="not on PATH")
        return
    version = trtexec_version(Path(program))
    yield Check(
        group=TENSORRT,
        name="trtexec",
        status="ok" if version else "wrong",
        fact=f"of TensorRT {version}" if version else "does not run, or does not say its version",
        evidence=program,
        remedy="" if version else f"{program} --help",
    )


def _opencv() -> Iterator[Check]:
    if find_spec("cv2") is None:
        yield Check(
            group=OTHER, name="OpenCV", status="missing", fact="not installed: `--resize fast` uses Pillow",
            remedy="pip install 'tao2serve[fast]'",
        )  # fmt: skip
        return
    names = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
    versions = [f"{name} {version}" for name in names if (version := _version(name))]
    yield Check(group=OTHER, name="OpenCV", status="ok", fact=", ".join(versions) or "installed")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _launcher(named: Path | None) -> Iterator[Check]:
    try:
        found = find_launcher(named)
    except ToolError as error:
        yield Check(
            group=OTHER, name="tao launcher", status="wrong", fact=f"{error.subject} {error.fact}", remedy=error.hint
        )
        return
    install = f"python3 -m venv tao && tao/bin/pip install nvidia-tao=={LAUNCHER_VERSION} setuptools"
    yield Check(
        group=OTHER,
        name="tao launcher",
        status="ok" if found else "missing",
        fact=str(found) if found else f"not on PATH: {_without_launcher()}",
        remedy="" if found else f"{install}   (docs/tao-launcher.md)",
    )


def _without_launcher() -> str:
    way = find_way(None)
    if find_program(way, None) is None:
        return "encrypted .tlt models cannot be opened"
    return "TAO is here, and opens encrypted models" if way == "inside" else "docker runs TAO's container"


def _docker() -> Iterator[Check]:
    program = shutil.which("docker")
    if program is None:
        yield Check(group=OTHER, name="Docker", status="missing", fact="not on PATH: only TAO's container needs it")
        return
    try:
        done = subprocess.run(
            [program, "version", "--format", "{{.Server.Version}}"],
            capture_output=True, text=True, errors="replace", timeout=3, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        version, trouble = done.stdout.strip(), (done.stderr or done.stdout).strip()[-200:]
        ok = done.returncode == 0 and bool(version)
    except (OSError, subprocess.SubprocessError) as error:
        ok, version, trouble = False, "", type(error).__name__
    yield Check(
        group=OTHER,
        name="Docker",
        status="ok" if ok else "missing",
        fact=f"engine {version}" if ok else "no engine answers: only TAO's container needs it",
        evidence="" if ok else trouble,
    )
