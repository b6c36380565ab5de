"""A Triton model repository: models are staged, checked and renamed into place, and never rewritten."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from tao2serve import runtime
from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.triton.config import CONFIG_FILE, PLAN_BACKEND, PYTHON_BACKEND, ModelConfig, parse_config, render_config
from tao2serve.values import ModelArtifact, TritonModel

__all__ = ["check_location", "check_model", "last_version", "remove_model", "write_model"]

log = logging.getLogger(__name__)

VERSION: Final = 1
# Triton 2.51 starts its python stub through a shell, with the paths unquoted and in ASCII.
LOCATION: Final = re.compile(r"[A-Za-z0-9_./+@%=:,-]+")
MODEL_CODE: Final = "model.py"
MODEL_FILE: Final = "model.onnx"
PLAN_FILE: Final = "model.plan"
NEEDED: Final = {PYTHON_BACKEND: (MODEL_CODE, MODEL_FILE), PLAN_BACKEND: (PLAN_FILE,)}


def write_model(artifact: ModelArtifact, config: ModelConfig, *, repository: Path) -> TritonModel:
    """Write one model; a reader never sees a partial folder, and a model that is there is never changed.

    The same content again is accepted and left as it is; other content under a name in use raises
    InputError. Layout: `<name>/config.pbtxt`, `<name>/1/model.py`, `<name>/1/model.onnx`; of a plan
    `<name>/1/model.plan` alone.
    """
    target = repository / config.name
    try:
        repository.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{config.name}.", dir=repository))
    except OSError as error:
        raise ServiceError(f"Triton repository {repository}", "cannot be written", evidence=str(error)) from error
    try:
        _fill(staging, artifact, config)
        check_model(staging, name=config.name)
        created = _put(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return TritonModel(
        name=config.name,
        version=VERSION,
        repository=repository,
        signature=artifact.signature,
        max_batch_size=config.max_batch_size,
        created=created,
    )


def check_location(folder: Path, *, remedy: str) -> None:
    """Raise UsageError if Triton's python backend cannot work in this folder: spaces and such end in a hang."""
    if not LOCATION.fullmatch(str(folder)):
        raise UsageError(
            str(folder),
            "is no folder for Triton's python backend",
            evidence="its path has a space or a character other than ASCII letters, digits and _./+@%=:,-",
            hint=remedy,
        )


def check_model(folder: Path, *, name: str) -> None:
    """Raise InputError unless Triton can load the model folder.

    Triton 2.51's python backend hangs for good at start-up when `model.py` is missing, so this is asked first.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"Triton model {name}", f"has no {CONFIG_FILE}", evidence=str(folder))
    config = parse_config(path.read_text(encoding="utf-8"), source=path)
    if config.name and config.name != name:
        raise InputError(f"Triton model {name}", f"is named {config.name!r} in its {CONFIG_FILE}", evidence=str(path))
    versions = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit()]
    if not versions:
        raise InputError(f"Triton model {name}", "has no version folder", evidence=str(folder))
    needed = NEEDED.get(config.backend, (MODEL_FILE,))
    for version in versions:
        for file_name in needed:
            file = version / file_name
            if not file.is_file() or not file.stat().st_size:
                raise InputError(f"Triton model {name}", f"has no {version.name}/{file_name}", evidence=str(folder))


def last_version(endpoint: str, *, repository: Path) -> int:
    """Return the highest N of the folders `<endpoint>_N`, 0 if there is none."""
    pattern = re.compile(rf"{re.escape(endpoint)}_(\d+)")
    names = [path.name for path in repository.iterdir()] if repository.is_dir() else []
    return max((int(match.group(1)) for name in names if (match := pattern.fullmatch(name))), default=0)


def remove_model(name: str, *, repository: Path) -> None:
    """Remove a model's folder, if it is there; unload it first."""
    target = repository / name
    if target.parent != repository or not target.is_dir():
        return
    doomed = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=repository))
    target.rename(doomed / name)  # gone at once for a reader, whatever happens to the slow part
    shutil.rmtree(doomed, ignore_errors=True)


def _fill(folder: Path, artifact: ModelArtifact, config: ModelConfig) -> None:
    version = folder / str(VERSION)
    version.mkdir()
    (folder / CONFIG_FILE).write_text(render_config(config), encoding="utf-8")
    if artifact.format == "tensorrt_plan":
        shutil.copyfile(artifact.path, version / PLAN_FILE)
    else:
        shutil.copyfile(Path(runtime.__file__).with_name("triton_model.py"), version / MODEL_CODE)
        shutil.copyfile(artifact.path, version / MODEL_FILE)
    for companion in artifact.companions:  # weights that an ONNX file keeps beside itself, found by relative name
        beside = version / companion.relative_to(artifact.path.parent)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(companion, beside)
    folder.chmod(0o755)  # mkdtemp makes it private, and Triton may run as somebody else


def _put(staging: Path, target: Path) -> bool:
    """Move the staged folder into place; False if the same content is there already."""
    if target.exists():
        if _digest(staging) == _digest(target):
            log.info("%s is there already, unchanged", target.name)
            return False
        raise InputError(
            f"Triton model {target.name}",
            "is in the repository with other content, and a model is never rewritten",
            evidence=str(target),
            hint="use another name or version",
        )
    try:
        staging.rename(target)
    except OSError as error:
        raise ServiceError(f"Triton repository {target.parent}", "cannot be written", evidence=str(error)) from error
    return True


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        # Python leaves its compiled model.py in the folder once Triton has loaded it.
        if path.is_file() and path.parent.name != "__pycache__":
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
