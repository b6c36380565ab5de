"""The Triton binary of the wheel `nvidia-pytriton`, started on a model repository of ours."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from tao2serve.errors import ToolError

__all__ = [
    "TritonPorts",
    "check_python_backend",
    "clean_environment_folders",
    "clean_shared_memory",
    "prepare_backends",
    "triton_binary",
    "triton_command",
    "triton_environment",
    "triton_options",
]

EXTRA_HINT = "pip install 'tao2serve[sandbox]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonPorts:
    http: int
    grpc: int
    metrics: int


def check_python_backend() -> Path:
    """Return the stub of Triton's python backend for this interpreter; raises ToolError saying what to install."""
    distribution = _distribution()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = distribution / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ToolError(
            "Triton's python backend", f"has no stub for Python {version}", evidence=str(stub.parent.parent)
        )
    if not _python_library_is_found(version):
        raise ToolError(
            f"libpython{version}.so.1.0",
            "is missing, and Triton's python backend needs it",
            hint=f"apt-get install libpython{version}  (or set LD_LIBRARY_PATH to the folder that holds it)",
        )
    return stub


def prepare_backends(folder: Path) -> None:
    """Lay out Triton's python backend for this interpreter; raises ToolError saying what to install.

    The wheel keeps the backend and the stub of each Python version apart; Triton wants them in one folder.
    """
    stub = check_python_backend()
    distribution = _distribution()
    target = folder / "python"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for entry in (distribution / "backends" / "python").iterdir():
        if entry.is_file():
            (target / entry.name).symlink_to(entry)
    (target / stub.name).symlink_to(stub)


def triton_command(repository: Path, backends: Path, ports: TritonPorts, *, shared_memory: str) -> tuple[str, ...]:
    """Return the command line of a Triton of ours: EXPLICIT mode."""
    return (
        str(triton_binary()),
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        *triton_options(backends, ports, shared_memory=shared_memory),
    )


def triton_binary() -> Path:
    return _distribution() / "bin" / "tritonserver"


def triton_options(backends: Path, ports: TritonPorts, *, shared_memory: str) -> tuple[str, ...]:
    """Return what any Triton of the sandbox needs: loopback only, shared memory under a name of its own.

    One model that does not load keeps neither the server nor the other models from serving.
    """
    return (
        f"--backend-directory={backends}",
        f"--cache-directory={_distribution() / 'caches'}",
        "--exit-on-error=false",
        "--strict-readiness=false",
        "--http-address=127.0.0.1",
        f"--http-port={ports.http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={ports.grpc}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={ports.metrics}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory}",
        "--exit-timeout-secs=5",
    )


def triton_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which Triton's python backend finds this interpreter's packages.

    It takes whichever python is first on PATH.
    """
    environment = dict(base)
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), base.get("PATH", os.defpath)))
    if sys.prefix != sys.base_prefix:
        environment["VIRTUAL_ENV"] = sys.prefix
    library = _shared_library_folder(f"{sys.version_info.major}.{sys.version_info.minor}")
    if library is not None:
        known = base.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (str(library), known)))
    return environment


def clean_shared_memory(prefix: str) -> None:
    """Remove what a killed Triton left in /dev/shm under this prefix."""
    for path in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - Triton's place, our own prefix
        path.unlink(missing_ok=True)


def clean_environment_folders(folder: Path = Path("/tmp")) -> None:  # noqa: S108 - Triton's place, whatever TMPDIR says
    """Remove the empty `python_env_…` folders of ended Tritons, which one that is killed cannot remove itself.

    Nothing is touched while any Triton of this user runs, since nothing tells whose folder it is.
    """
    names = (process.info["name"] for process in psutil.process_iter(["name", "uids", "status"]) if _is_ours(process))
    if "tritonserver" in names:
        return
    for leftover in folder.glob("python_env_??????"):
        with contextlib.suppress(OSError):  # not empty, or not ours
            leftover.rmdir()


def _is_ours(process: psutil.Process) -> bool:
    uids = process.info["uids"]
    runs = process.info["status"] != psutil.STATUS_ZOMBIE  # an ended one may wait long for its parent
    return runs and uids is not None and uids.real == os.getuid()


def _distribution() -> Path:
    spec = find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ToolError("Triton", "is not installed (wheel nvidia-pytriton)", hint=EXTRA_HINT)
    return Path(spec.submodule_search_locations[0]) / "tritonserver"


def _python_library_is_found(version: str) -> bool:
    return ctypes.util.find_library(f"python{version}") is not None or _shared_library_folder(version) is not None


def _shared_library_folder(version: str) -> Path | None:
    """Find libpython beside the interpreter (a build with --enable-shared) or in LD_LIBRARY_PATH."""
    named = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders = [Path(sys.base_prefix) / "lib", *(Path(folder) for folder in named if folder)]
    for folder in folders:
        if (folder / f"libpython{version}.so.1.0").is_file():
            return folder
    return None
