"""What this machine has for building and running engines: GPU, driver, TensorRT, trtexec."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

__all__ = ["Machine", "Run", "import_tensorrt", "read_machine", "run_program", "trtexec_version"]

Run: TypeAlias = Callable[[Sequence[str]], str]  # a program's output; "" if it cannot be run or fails

_QUERY: Final = "--query-gpu=name,compute_cap,driver_version"
# The table on top of nvidia-smi's output; newer drivers say "CUDA UMD Version".
_CUDA: Final = re.compile(r"CUDA (?:UMD )?Version\s*:\s*(\d+(?:\.\d+)*)")
# "&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # …"; TensorRT 8 writes "[TensorRT v8601]" and no build.
_BANNER: Final = re.compile(r"\[TensorRT v(\d{4,7})\](?:\s*\[b(\d+)\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts a plan depends on; "" or None where there is nothing, or nothing is known.

    `cuda_version` is the newest CUDA the driver runs, as nvidia-smi shows it; TensorRT brings its own runtime.
    The caller may fill one in for another machine, such as the one a Triton runs on.
    """

    gpu_name: str = ""
    compute_capability: str = ""  # "9.0"
    driver_version: str = ""
    cuda_version: str = ""
    platform: str = ""  # "linux-x86_64"
    tensorrt_version: str = ""  # of the Python package, else of trtexec
    tensorrt_trouble: str = ""  # why the package is there and cannot be imported
    trtexec: Path | None = None

    def __str__(self) -> str:
        gpu = f"{self.gpu_name} (compute capability {self.compute_capability})" if self.gpu_name else "no GPU seen"
        tensorrt = f"TensorRT {self.tensorrt_version}" if self.tensorrt_version else "no TensorRT"
        return f"{gpu}, {tensorrt}, {self.platform or 'platform unknown'}"


def read_machine(
    *, trtexec: Path | None = None, environment: Mapping[str, str] = os.environ, run: Run | None = None
) -> Machine:
    """Look at what is here; a missing part is not an error. `trtexec` names the program if it is not on PATH.

    Of several GPUs it is the first that CUDA_VISIBLE_DEVICES leaves, by its index or UUID.
    """
    run = run or run_program
    name, capability, driver = _gpu(run, environment)
    program = trtexec or _on_path("trtexec", environment)
    module, trouble = import_tensorrt()
    version = str(module.__version__) if module is not None else trtexec_version(program, run=run) if program else ""
    found = _CUDA.search(run(["nvidia-smi"])) if name else None
    return Machine(
        gpu_name=name,
        compute_capability=capability,
        driver_version=driver,
        cuda_version=found.group(1) if found else "",
        platform=f"{platform.system()}-{platform.machine()}".lower(),
        tensorrt_version=version,
        tensorrt_trouble=trouble,
        trtexec=program,
    )


def import_tensorrt() -> tuple[Any | None, str]:
    """Import and return the `tensorrt` package, or None and why not ("" if it is not installed)."""
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        return None, "" if error.name == "tensorrt" else str(error)
    except Exception as error:  # OSError for a library that is missing; a broken wheel raises whatever it likes
        return None, f"{type(error).__name__}: {error}"[:300]
    return tensorrt, ""


def trtexec_version(program: Path, *, run: Run | None = None) -> str:
    """Return the TensorRT version in trtexec's banner, such as "10.16.1.11" or "8.6.1"; "" if it shows none."""
    found = _BANNER.search((run or run_program)([str(program), "--help"]))
    if found is None:
        return ""
    number, build = int(found.group(1)), found.group(2)
    # TensorRT 8 counts the major version in thousands, 10 and later in ten thousands.
    major, rest = divmod(number, 1000) if number < 10_000 else divmod(number, 10_000)
    return ".".join(map(str, (major, *divmod(rest, 100)))) + (f".{build}" if build else "")


def run_program(command: Sequence[str]) -> str:
    """Return what a short program prints on stdout; "" if it is not there, fails, or takes over 20 s."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, errors="replace", timeout=20, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _on_path(program: str, environment: Mapping[str, str]) -> Path | None:
    found = shutil.which(program, path=environment.get("PATH", ""))
    return Path(found) if found else None


def _gpu(run: Run, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Return name, compute capability and driver of the GPU that CUDA calls 0; "" for each if there is none."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        return "", "", ""
    lines = run(["nvidia-smi", f"--id={visible}", _QUERY, "--format=csv,noheader"]).splitlines()
    parts = [part.strip() for part in lines[0].split(",")] if lines else []
    if len(parts) != 3 or not re.fullmatch(r"\d+\.\d+", parts[1]):
        return "", "", ""
    return parts[0], parts[1], parts[2]
