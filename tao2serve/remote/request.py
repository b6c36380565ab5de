"""A command as it can run elsewhere: its words, with paths that mean the same there as the user's mean here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias

from tao2serve.errors import InputError, UsageError
from tao2serve.remote.carried import Carried, OutputOf
from tao2serve.remote.companions import companions_of

__all__ = [
    "IN",
    "OUT",
    "WORK",
    "Given",
    "HandedOn",
    "InputOf",
    "RemoteCommand",
    "as_here",
    "described",
    "require_no_key_in",
]

# In names of its own, so that they are found again in whatever the command says, and are part of nothing else.
IN: Final = "tao2serve-in"
OUT: Final = "tao2serve-out"
WORK: Final = "tao2serve-remote-"  # how the folder begins in which it runs
_ROOT: Final = rf"/(?:[^\s\"'<>]*/)?{WORK}\w+/"
_SECRET_URL: Final = re.compile(r"://[^/\s]*@|://\S*\?")
Words: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One parameter as it was given: `option` is "" for an argument, and a flag has no values."""

    option: str
    values: Words
    carried: Carried


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOf:
    """A file or folder here, and where the command finds it there."""

    place: str
    path: Path

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOn:
    """What another task left in ClearML, and where the command finds it there; it is not uploaded again."""

    place: str
    uri: str
    sha256: str
    bytes: int
    is_folder: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCommand:
    """What to run, what it needs, what it leaves; `paths` are the user's own words for its places."""

    command: str
    arguments: Words
    inputs: tuple[InputOf, ...] = ()
    handed: tuple[HandedOn, ...] = ()
    outputs: tuple[OutputOf, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    force: bool = False


@dataclass(slots=True)
class _Drafted:
    inputs: list[InputOf] = field(default_factory=list)
    outputs: list[OutputOf] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)

    def folder(self, name: str) -> str:
        """Return a folder that nothing else is in; two digits, so that none begins as another does."""
        return f"{name}/{len(self.paths):02}"


def described(command: str, given: Sequence[Given], *, force: bool = False) -> RemoteCommand:
    """Describe a command for another machine; nothing is read yet but what lies beside a model.

    Raises InputError for an input that is not there, UsageError for a URL that holds a key: ClearML would show it.
    """
    drafted = _Drafted()
    options: list[str] = []
    positional: list[str] = []
    for one in given:
        values = [
            _value(one.option or f"an argument of {command}", value, one.carried, drafted) for value in one.values
        ]
        if not one.option:
            positional += values
        elif values:
            options += [word for value in values for word in (one.option, value)]
        else:
            options.append(one.option)
    return RemoteCommand(
        command=command,
        arguments=(command, *options, *(("--", *positional) if positional else ())),
        inputs=tuple(drafted.inputs),
        outputs=tuple(drafted.outputs),
        paths=drafted.paths,
        force=force,
    )


def _value(name: str, value: str, carried: Carried, drafted: _Drafted) -> str:
    kind = carried.kind
    if kind == "input" or (kind == "model" and _is_file(value)):
        return _input(Path(value), drafted)
    if kind == "kept":
        folder = drafted.folder(IN)
        place = f"{folder}/{Path(value).name}"
        if Path(value).is_file():
            drafted.inputs.append(InputOf(place=place, path=Path(value)))
        drafted.outputs.append(OutputOf(place=place, path=value, is_file=True))
        drafted.paths[place] = value
        return place
    if kind == "output":
        place = drafted.folder(OUT)
        drafted.outputs.append(OutputOf(place=place, path=value, guarded=carried.guarded))
        drafted.paths[place] = value
        return place
    require_no_key_in(name, value)
    return value


def require_no_key_in(name: str, value: object) -> None:
    """Raise UsageError if a value is a URL with user, password or query: all can be read in ClearML."""
    if _SECRET_URL.search(str(value)):
        raise UsageError(
            name, "is a URL that may hold a key, and what runs on a queue can be read in ClearML",
            hint="give it without user, password and query",
        )  # fmt: skip


def _is_file(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # too long for a name
        return False


def _input(path: Path, drafted: _Drafted) -> str:
    """Add a file or folder, and what belongs to it, in folders that lie to each other as here."""
    if not path.exists():
        raise InputError(str(path), "does not exist")
    folder = drafted.folder(IN)
    beside, above = path.parent, path.resolve().parent.parent
    inside = f"{folder}/in"
    place = f"{inside}/{path.name or 'folder'}"
    drafted.paths[place] = str(path)
    drafted.inputs.append(InputOf(place=place, path=path))
    for companion in companions_of(path) if path.is_file() else ():
        relative = PurePosixPath(companion.relative)
        home = f"{folder}/{relative.name}" if companion.is_above else f"{inside}/{relative}"
        typed = above / relative.name if companion.is_above else beside / relative
        drafted.inputs.append(InputOf(place=home, path=companion.path))
        drafted.paths[home] = str(typed)
    return place


def as_here(value: Any, paths: Mapping[str, str]) -> Any:
    """Return what a command said there in the user's own paths: relative where he gave them so, if it did too."""
    if isinstance(value, str):
        return _text_as_here(value, paths)
    if isinstance(value, Mapping):
        return {key: as_here(item, paths) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_here(item, paths) for item in value]
    return value


def _text_as_here(text: str, paths: Mapping[str, str]) -> str:
    if IN not in text and OUT not in text:
        return text
    for place in sorted(paths, key=len, reverse=True):
        typed = Path(paths[place])
        absolute = str(typed.absolute())
        text = re.sub(_ROOT + re.escape(place), absolute.replace("\\", r"\\"), text)
        if str(typed) == ".":
            text = text.replace(f"{place}/", "")
        text = text.replace(place, str(typed))
    return text
