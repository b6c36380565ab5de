"""The script of a remote run's ClearML task: it finds or makes an environment with tao2serve, and goes on in it.

It runs in whatever Python the agent gives it, so it uses the standard library and clearml alone, and no syntax that
Python 3.8 has not. It is sent as it stands.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WANTED = "{}"  # the package that is wanted, filled in where the script is sent from
OLDEST, NEWEST = (3, 11), (3, 13)
CONFIGURATION = "tao2serve"
PACKAGE = "package"
INSTALL_LIMIT_S = 3600


def script(wanted: dict[str, Any]) -> str:
    """Return this file as it is sent: with the package that is wanted."""
    text = Path(__file__).read_text(encoding="utf-8")
    return text.replace('WANTED = "{}"', "WANTED = " + repr(json.dumps(wanted)), 1)


def package_files(package: Path) -> list[Path]:
    """Return the files that make up the package, in one order everywhere."""
    return sorted(
        path
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    )


def package_digest(package: Path) -> str:
    """Return a digest of the package's files: two installations with the same run the same."""
    digest = hashlib.sha256()
    for path in package_files(package):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def prepared(wanted: dict[str, Any]) -> bool:
    """Whether this Python's own tao2serve is the one that is wanted, with its extras."""
    spec = find_spec("tao2serve")
    if spec is None or not spec.origin:
        return False
    if any(find_spec(module.split(".")[0]) is None for module in wanted["modules"]):
        return False
    return package_digest(Path(spec.origin).parent) == str(wanted["digest"])


def installed(wanted: dict[str, Any]) -> Path:
    """Return the Python of an environment with the wanted tao2serve, made once on this machine."""
    extras = ",".join(wanted["extras"])
    python = supported_python()
    key = "-".join([wanted["digest"][:16], hashlib.sha256((extras + str(python)).encode()).hexdigest()[:8]])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tao2serve" / "environments" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    inside = folder / "bin" / "python"
    with (folder.parent / (key + ".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "made").is_file():
            print("tao2serve was installed before: " + str(folder), flush=True)
            return inside
        shutil.rmtree(str(folder), ignore_errors=True)
        print("installing tao2serve into " + str(folder), flush=True)
        make_environment(python, folder)
        wheel = folder / wanted["wheel"]
        shutil.copyfile(downloaded(), str(wheel))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != wanted["wheel_sha256"]:
            sys.exit("the package that ClearML holds is not the one that was sent")
        target = str(wheel) + ("[" + extras + "]" if extras else "")
        install(folder, target)
        (folder / "made").touch()
    return inside


def downloaded() -> str:
    """Return the package as a file here; clearml takes seconds to import, so only where it is not installed yet."""
    from clearml import Task

    task = Task.get_task(task_id=os.environ["CLEARML_TASK_ID"])
    return str(task.artifacts[PACKAGE].get_local_copy(extract_archive=False))


def supported_python() -> str | None:
    """Return a Python that tao2serve supports; None if this machine has none."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which("python3." + str(minor))
        if found:
            return found
    return None


def make_environment(python: str | None, folder: Path) -> None:
    """Make an empty environment, with uv's own Python where there is none that will do."""
    if python is not None:
        # Debian's python3 has no venv without python3-venv; clearml-agent brings virtualenv.
        for command in ([python, "-m", "venv"], [sys.executable, "-m", "virtualenv", "-p", python]):
            if subprocess.run([*command, str(folder)], check=False).returncode == 0:
                return
            shutil.rmtree(str(folder), ignore_errors=True)
    tools = folder.parent / "tools"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(tools), "uv"]
    subprocess.run(pip, check=True, timeout=INSTALL_LIMIT_S)
    version = f"3.{NEWEST[1] - 1}"
    command = [str(tools / "bin" / "uv"), "venv", "--seed", "--python", version, str(folder)]
    subprocess.run(command, check=True, timeout=INSTALL_LIMIT_S)


def install(folder: Path, target: str) -> None:
    """Install the package and what it needs from the index that this machine's pip is set up for."""
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", target]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run(pip, check=True, timeout=INSTALL_LIMIT_S, env=environment)


def main() -> None:
    """Go on as the job, in this process: the agent watches and ends it by its number."""
    wanted = json.loads(WANTED)
    print(f"Python {sysconfig.get_python_version()} in {sys.prefix}", flush=True)
    python = sys.executable if prepared(wanted) else str(installed(wanted))
    os.execv(python, [python, "-u", "-m", "tao2serve.remote.job"])


if __name__ == "__main__":
    main()
