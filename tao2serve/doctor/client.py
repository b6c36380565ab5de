"""This installation: Python, packages, settings, and where it writes."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from tao2serve.config import home, load_settings
from tao2serve.doctor.check import Check, Examination
from tao2serve.errors import UsageError

__all__ = ["client_examinations", "extra", "missing_of"]

GROUP: Final = "client"
_LEAST_FREE_BYTES: Final = 200 * 1024 * 1024  # a model, its ONNX file and what is published of it


def client_examinations() -> tuple[Examination, ...]:
    return (
        Examination(group=GROUP, name="Python", run=_python),
        Examination(group=GROUP, name="packages", run=_packages),
        Examination(group=GROUP, name="settings", run=_settings),
        Examination(group=GROUP, name="state folder", run=_state),
        Examination(group=GROUP, name="load tests", run=lambda: extra(GROUP, "load tests", "loadtest")),
    )


def _python() -> Iterator[Check]:
    version = platform.python_version()
    yield Check(group=GROUP, name="Python", status="ok", fact=version, evidence=sys.executable)
    machine = f"{platform.system()} on {platform.machine()}"
    known = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    yield Check(
        group=GROUP,
        name="platform",
        status="ok" if known else "missing",
        fact=machine,
        evidence="" if known else "the sandbox and engines are made for Linux on x86-64",
    )
    yield Check(group=GROUP, name="tao2serve", status="ok", fact=metadata.version("tao2serve"))


def _packages() -> Iterator[Check]:
    lacking = missing_of("tao2serve", "")
    if lacking:
        yield Check(
            group=GROUP, name="packages", status="wrong", fact=f"{len(lacking)} missing or of another version",
            evidence="; ".join(lacking), remedy="pip install --upgrade tao2serve",
        )  # fmt: skip
    else:
        yield Check(group=GROUP, name="packages", status="ok", fact="all that tao2serve declares are here")


def _settings() -> Iterator[Check]:
    try:
        load_settings()
    except UsageError as error:
        yield Check(
            group=GROUP, name="settings", status="wrong", fact=f"{error.subject} {error.fact}",
            evidence=error.evidence, remedy=error.hint or "tao2serve config schema",
        )  # fmt: skip
    else:
        yield Check(group=GROUP, name="settings", status="ok", fact="can be read", remedy="")


def _state() -> Iterator[Check]:
    yield _folder("state folder", home(), remedy="choose another: export TAO2SERVE_HOME=/var/tmp/tao2serve")
    yield _folder("temporary folder", Path(tempfile.gettempdir()), remedy="choose another: export TMPDIR=/var/tmp")


def _folder(name: str, folder: Path, *, remedy: str) -> Check:
    """Say whether a folder, or the one it would be made in, can be written and has room; makes nothing."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check(
            group=GROUP, name=name, status="wrong", fact=f"{folder} cannot be written", evidence=str(there),
            remedy=remedy,
        )  # fmt: skip
    free = shutil.disk_usage(there).free
    enough = free >= _LEAST_FREE_BYTES
    return Check(
        group=GROUP,
        name=name,
        status="ok" if enough else "wrong",
        fact=f"{folder}, {free / 1e9:.1f} GB free",
        remedy="" if enough else f"make room, or {remedy}",
    )


def extra(group: str, name: str, word: str) -> Iterator[Check]:
    """Say whether the packages of one extra are here."""
    lacking = missing_of("tao2serve", word)
    yield Check(
        group=group,
        name=name,
        status="missing" if lacking else "ok",
        fact=f"extra {word} is not whole" if lacking else f"extra {word} is here",
        evidence="not here: " + "; ".join(lacking) if lacking else "",
        remedy=f"pip install 'tao2serve[{word}]'" if lacking else "",
    )


def missing_of(distribution: str, extra_word: str) -> list[str]:
    """Return the requirements, of all depths, that are not installed or of another version, as pip would write them.

    With an extra: its own requirements and what follows from them.
    """
    from packaging.requirements import Requirement

    lacking: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(distribution, extra_word)]
    while waiting:
        name, word = waiting.pop()
        if (name, word) in seen:
            continue
        seen.add((name, word))
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": word}):
                continue
            if word and name == distribution and (requirement.marker is None or requirement.marker.evaluate()):
                continue  # the base's own
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                lacking[requirement.name] = _shown(requirement.name, str(requirement.specifier))
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                wanted = _shown(requirement.name, str(requirement.specifier))
                lacking[requirement.name] = f"{wanted} (here: {version})"
            waiting += [(requirement.name, further) for further in ("", *sorted(requirement.extras))]
    return sorted(lacking.values(), key=str.lower)


def _shown(name: str, specifier: str) -> str:
    return f"{name}{specifier}"
