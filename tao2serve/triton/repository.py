"""A Triton model repository: sets of models are staged, checked and renamed into place, and never rewritten."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.steps import undone_on_failure
from tao2serve.triton.config import CONFIG_FILE, ENSEMBLE, PLAN_BACKEND, PYTHON_BACKEND, parse_config, render_config
from tao2serve.triton.models import MODEL_CODE, MODEL_FILE, PARTS, PLAN_FILE, VERSION, ModelFolder
from tao2serve.values import TritonModel

__all__ = ["check_location", "check_model", "last_version", "remove_folder", "remove_models", "write_models"]

log = logging.getLogger(__name__)

# Triton 2.51 starts its python stub through a shell, with the paths unquoted and in ASCII.
LOCATION: Final = re.compile(r"[A-Za-z0-9_./+@%=:,-]+")


def write_models(models: Sequence[ModelFolder], *, repository: Path, mark: str = "") -> tuple[TritonModel, ...]:
    """Write a set of models; a reader never sees a partial folder, nor a last model without the others.

    All are staged and checked before the first is renamed into place, in the order given; when one of that fails,
    those that were put there are taken away again. A model that is there is never changed: the same content is
    accepted and left as it is, other content under a name in use raises InputError, before any is put there. Hidden
    folders carry the `mark` of whoever writes: what is left of them by a process that was killed says whose it is.
    """
    with ExitStack() as stack:
        staged = [stack.enter_context(_staged(model, repository, mark)) for model in models]
        targets = [repository / model.config.name for model in models]
        known = [_is_there(folder, target) for folder, target in zip(staged, targets, strict=True)]
        undo = stack.enter_context(undone_on_failure())
        for folder, target, is_there in zip(staged, targets, known, strict=True):
            if is_there:
                log.info("%s is there already, unchanged", target.name)
                continue
            _put(folder, target)
            undo.callback(_remove, target, mark)
        undo.pop_all()
    return tuple(
        TritonModel(
            name=model.config.name,
            version=VERSION,
            repository=repository,
            backend=model.config.backend,
            created=not is_there,
        )
        for model, is_there in zip(models, known, strict=True)
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
    for version in versions:
        for file_name in _needed(config, version):
            file = version / file_name
            if not file.is_file() or not file.stat().st_size:
                raise InputError(f"Triton model {name}", f"has no {version.name}/{file_name}", evidence=str(folder))


def last_version(endpoint: str, *, repository: Path) -> int:
    """Return the highest N of the folders `<endpoint>_N` and of the parts of such an ensemble, 0 if there is none."""
    parts = "|".join(PARTS)
    pattern = re.compile(rf"{re.escape(endpoint)}_(\d+)(?:{parts})?")
    names = [path.name for path in repository.iterdir()] if repository.is_dir() else []
    return max((int(match.group(1)) for name in names if (match := pattern.fullmatch(name))), default=0)


def remove_models(models: Sequence[TritonModel], *, mark: str = "") -> None:
    """Remove the folders that are there, the last model's first; unload them before."""
    for model in reversed(models):
        if model.path.parent == model.repository and model.path.is_dir():
            _remove(model.path, mark)


def remove_folder(folder: Path, *, mark: str = "") -> None:
    """Remove a model's folder, or what a killed run left half-written; not being there is no error."""
    if folder.is_dir() and not folder.is_symlink():
        _remove(folder, mark)


def _remove(folder: Path, mark: str) -> None:
    doomed = Path(tempfile.mkdtemp(prefix=_hidden(folder.name, mark), dir=folder.parent))
    folder.rename(doomed / folder.name)  # gone at once for a reader, whatever happens to the slow part
    shutil.rmtree(doomed, ignore_errors=True)


def _needed(config: Any, version: Path) -> tuple[str, ...]:
    """Return the files without which Triton cannot load a model, or hangs."""
    if config.platform == ENSEMBLE:
        return ()
    if config.backend == PLAN_BACKEND:
        return (PLAN_FILE,)
    if config.backend == PYTHON_BACKEND and (version / "runtime").is_dir():
        return (MODEL_CODE, "params.json", "runtime/__init__.py")
    return (MODEL_CODE, MODEL_FILE) if config.backend == PYTHON_BACKEND else (MODEL_FILE,)


def _hidden(name: str, mark: str) -> str:
    """Return how the name of a staged or doomed folder begins; eight random characters follow."""
    return f".{name}.of-{mark}." if mark else f".{name}."


@contextmanager
def _staged(model: ModelFolder, repository: Path, mark: str) -> Iterator[Path]:
    """Yield the whole model in a hidden folder of the repository, checked; it is gone at the end, if still there."""
    name = model.config.name
    try:
        repository.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_hidden(name, mark), dir=repository))
    except OSError as error:
        raise ServiceError(f"Triton repository {repository}", "cannot be written", evidence=str(error)) from error
    try:
        _fill(folder, model)
        check_model(folder, name=name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, model: ModelFolder) -> None:
    (folder / CONFIG_FILE).write_text(render_config(model.config), encoding="utf-8")
    for name, content in model.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)
    folder.chmod(0o755)  # mkdtemp makes it private, and Triton may run as somebody else


def _is_there(staged: Path, target: Path) -> bool:
    """Whether the staged content is there already; raises InputError if other content is."""
    if not target.exists():
        return False
    if _digest(staged) == _digest(target):
        return True
    raise InputError(
        f"Triton model {target.name}",
        "is in the repository with other content, and a model is never rewritten",
        evidence=str(target),
        hint="use another name or version",
    )


def _put(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except OSError as error:
        raise ServiceError(f"Triton repository {target.parent}", "cannot be written", evidence=str(error)) from error


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        # Python leaves its compiled model.py in the folder once Triton has loaded it.
        if path.is_file() and path.parent.name != "__pycache__":
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
