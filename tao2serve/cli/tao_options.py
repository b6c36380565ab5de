"""What all commands of `tao2serve tao` take, and how a run is prepared from it."""

from __future__ import annotations

import functools
import inspect
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from tao2serve.cli.options import Json, one_of
from tao2serve.errors import ToolError, UsageError

if TYPE_CHECKING:
    from tao2serve.registry.tao_tracking import TaoTracking
    from tao2serve.tao.mounts import Mounts
    from tao2serve.tao.place import Place, Way
    from tao2serve.tao.preflight import PreflightCheck
    from tao2serve.tao.running import RunRequest
    from tao2serve.tao.subtask import Subtask

_Via = Annotated[
    str,
    typer.Option(
        "--via", metavar="WAY", help="launcher (NVIDIA's tao), docker, or inside (TAO's container is here); else found."
    ),
]
_Image = Annotated[
    str, typer.Option("--image", metavar="IMAGE", help="Another image than NVIDIA's; with --via docker.")
]
_MountOption = Annotated[
    list[str] | None,
    typer.Option("--mount", metavar="FROM:TO", help="Show a folder of this machine in the container; several times."),
]
_Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME", help="Hand a variable of this environment on; several times."),
]
_KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="File with the key of encrypted models.")
]
_OutputUri = Annotated[
    str, typer.Option("--output-uri", metavar="URL", help="Where models are uploaded; default: ClearML's file server.")
]
_NoClearML = Annotated[bool, typer.Option("--no-clearml", help="Hand no ClearML credentials on: nothing is tracked.")]
_SkipPreflight = Annotated[bool, typer.Option("--skip-preflight", help="Do not look at GPU, Docker, login and mounts.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show checks and exact command, secrets masked; run nothing.")]
More = Annotated[
    list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="More options of NVIDIA's own, as they are.")
]
SECRET_NAME: Final = re.compile(r"KEY|SECRET|TOKEN|PASS|_PWD|CREDENTIAL|CONNECTION_STRING", re.IGNORECASE)
URL_PASSWORD: Final = re.compile(r"\w://[^/@:\s]*:([^/@\s]+)@")

SHORTEST_SECRET: Final = 6  # a shorter one would blot out words that are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """The options above, as they were given."""

    via: str = ""
    image: str = ""
    mounts: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    key_file: Path | None = None
    output_uri: str = ""
    no_clearml: bool = False
    skip_preflight: bool = False
    dry_run: bool = False
    json_output: bool = False


# Parameter → its option and default; the order is that of the help.
_OPTIONS: Final[Mapping[str, tuple[Any, Any]]] = {
    "via": (_Via, ""),
    "image": (_Image, ""),
    "mounts": (_MountOption, None),
    "env": (_Env, None),
    "key_file": (_KeyFile, None),
    "output_uri": (_OutputUri, ""),
    "no_clearml": (_NoClearML, False),
    "skip_preflight": (_SkipPreflight, False),
    "dry_run": (_DryRun, False),
    "json_output": (Json, False),
}
_OF_TRAININGS: Final = ("output_uri", "no_clearml")


def with_common(*, trains: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of Common, which its function gets as `common`.

    Those of ClearML are a training's alone: nothing else reports to it.
    """
    options = {name: one for name, one in _OPTIONS.items() if trains or name not in _OF_TRAININGS}

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            common = {name: given.pop(name) for name in options}
            for several in ("mounts", "env"):
                common[several] = tuple(common[several] or ())
            function(**given, common=Common(**({} if trains else {"no_clearml": True}) | common))

        signature = inspect.signature(function, eval_str=True)
        own = [one for one in signature.parameters.values() if one.name != "common"]
        added = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=hint)
            for name, (hint, default) in options.items()
        ]
        hints = {name: hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "common"}
        command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        command.__annotations__ = hints | {name: hint for name, (hint, _) in options.items()}
        return command

    return decorated


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A place where TAO runs, and what no output may show."""

    place: Place
    given: tuple[tuple[str, str], ...] = field(repr=False)  # variables that every subtask gets, tracked or not
    key: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    tracking: TaoTracking | None
    tracked: bool

    def request(self, subtask: Subtask, *, results: Path, log: Path | None = None) -> RunRequest:
        """Return the run of a subtask here; of ClearML only a training is told, for nothing else reports to it."""
        from tao2serve.tao.running import RunRequest

        tracked = self.tracked and subtask.name == "train"
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return RunRequest(
            subtask=subtask,
            place=self.place if tracked else replace(self.place, environment=self.given),
            results=results,
            log=log or results / "logs" / f"{subtask.name}-{stamp}.log",
            key=self.key,
            secrets=self.secrets,
            tracked=tracked,
        )

    def showing(self, *paths: Path) -> Prepared:
        """Return the same place, where the container sees these files and folders too."""
        from tao2serve.tao.mounts import reach

        mounts = self.place.mounts
        for path in paths if self.place.way != "inside" else ():
            mounts, _ = reach(mounts, path)
        return replace(self, place=replace(self.place, mounts=mounts))


def prepare(common: Common, *, spec_to_track: Path | None) -> Prepared:
    """Find where TAO runs, its mounts, key and ClearML; `spec_to_track` is that of a training, None for other subtasks.

    Raises UsageError and ToolError for what is named and is not there.
    """
    from tao2serve.config import load_settings
    from tao2serve.registry.tao_tracking import tao_tracking
    from tao2serve.tao.key import key_if_given
    from tao2serve.tao.mounts import Mounts
    from tao2serve.tao.place import Place, with_own_user

    settings = load_settings({"tao_key_file": common.key_file})
    way, program = _way(common, settings.tao_launcher)
    tracked = spec_to_track is not None and not common.no_clearml and _has_tracking(spec_to_track)
    tracking = tao_tracking(common.output_uri) if tracked else None
    mounts = _mounts(common.mounts) if way != "inside" else Mounts()
    if way != "inside":
        mounts = with_own_user(mounts, host_network=tracking is not None and tracking.on_loopback)
    given = _named_variables(common.env)
    variables = _variables(tracking, mounts, common.output_uri) if tracked else ()
    known = (*given, *mounts.environment, *os.environ.items())
    secrets = [value for name, value in known if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET]
    secrets += [word for _, value in (*known, ("", common.output_uri)) for word in _in_url(value)]
    return Prepared(
        place=Place(way=way, program=program, mounts=mounts, environment=(*variables, *given), image=common.image),
        given=given,
        key=key_if_given(settings.tao_key_file),
        secrets=(*secrets, *(tracking.secrets if tracking is not None else ())),
        tracking=tracking,
        tracked=tracked,
    )


def _in_url(value: str) -> Iterator[str]:
    """Yield the password that a URL names, as it stands in it."""
    found = URL_PASSWORD.search(value)
    if found is not None and len(found.group(1)) >= SHORTEST_SECRET:
        yield found.group(1)


def shown_value(name: str, value: str, secrets: Sequence[str]) -> str:
    """Return what may be shown of a variable: nothing of a secret, of a URL not who asks."""
    from tao2serve.loadtest.addresses import shown_url

    return "***" if SECRET_NAME.search(name) or value in secrets else shown_url(value)


def _way(common: Common, named_launcher: Path | None) -> tuple[Way, Path]:
    from tao2serve.tao.place import WAYS
    from tao2serve.tao.way import find_program, find_way

    way: Way | None = one_of(common.via, WAYS, option="--via") if common.via else None
    if way == "launcher" and common.image:
        raise UsageError("--image", "is Docker's alone: the launcher has images of its own", hint="give --via docker")
    way = way or find_way(named_launcher, image=common.image)
    program = find_program(way, named_launcher)
    if program is None:
        raise _missing(way)
    return way, program


def _missing(way: Way) -> ToolError:
    from tao2serve.tao.launcher import LAUNCHER_VERSION

    if way == "launcher":
        return ToolError(
            "the tao launcher", "is not on PATH",
            hint=f"python3 -m venv ~/tao && ~/tao/bin/pip install nvidia-tao=={LAUNCHER_VERSION} setuptools, and name "
            "it: export TAO2SERVE_TAO_LAUNCHER=~/tao/bin/tao",
        )  # fmt: skip
    name, hint = {
        "docker": ("docker", "install Docker, or NVIDIA's launcher: docs/tao-launcher.md"),
        "inside": ("python", "this runs in TAO's container, with its python on PATH"),
    }[way]
    return ToolError(f"--via {way}", f"needs the program {name}, which is not on PATH", hint=hint)


def _has_tracking(spec: Path) -> bool:
    from tao2serve.tao.spec_tree import SpecSyntaxError, parse_tree
    from tao2serve.tao.text import read_text

    try:
        return bool(parse_tree(read_text(spec)).walk("training_config", "visualizer", "clearml_config"))
    except SpecSyntaxError:
        return False  # the preflight says what is wrong with it


def _mounts(given: Sequence[str]) -> Mounts:
    from tao2serve.tao.mounts import Mount, require_mountable, user_mounts

    mounts = user_mounts()
    for entry in given:
        source, _, destination = entry.rpartition(":")
        path = Path(os.path.expanduser(source))  # noqa: PTH111 - a ~ of nobody stays, and does not exist
        if not source or not destination.startswith("/") or not path.exists():
            raise UsageError(
                "--mount", f"is {entry!r}", hint="give FOLDER:FOLDER_IN_CONTAINER, the first of which exists"
            )
        require_mountable(path)
        added = Mount(source=path.resolve(), destination=PurePosixPath(destination))
        # Docker refuses two with one destination: the one that is named last counts, as with one source.
        kept = tuple(
            mount for mount in mounts.mounts if mount.source != added.source and mount.destination != added.destination
        )
        mounts = replace(mounts, mounts=(*kept, added))
    return mounts


def _named_variables(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for name in names:
        if name not in os.environ:
            raise UsageError("--env", f"names {name!r}, which is not in this environment", hint=f"export {name}=…")
        found.append((name, os.environ[name]))
    return tuple(found)


def _variables(tracking: TaoTracking | None, mounts: Mounts, output_uri: str) -> tuple[tuple[str, str], ...]:
    """Return ClearML's variables; credentials of the user's mounts file stay: a host and another's key fit nothing.

    Where models are uploaded is said all the same, or TAO would register them by a path in the container.
    """
    from tao2serve.registry.tao_tracking import OUTPUT_VARIABLE

    theirs = dict(mounts.environment)
    if "CLEARML_API_ACCESS_KEY" not in theirs:
        return tracking.variables if tracking is not None else ()
    output = output_uri or theirs.get("CLEARML_FILES_HOST", "") or (tracking.output_uri if tracking is not None else "")
    return ((OUTPUT_VARIABLE, output),) if output and OUTPUT_VARIABLE not in theirs else ()


def tracking_checks(prepared: Prepared, spec: Path | None) -> Iterator[PreflightCheck]:
    """Say whether ClearML will hear of a training, and get its models."""
    from tao2serve.tao.preflight import PreflightCheck

    if spec is None:
        return
    if not prepared.tracked:
        yield PreflightCheck(
            name="ClearML", status="skipped",
            fact="hears nothing of this run: the spec has no clearml_config, or --no-clearml was given",
            remedy=f"tao2serve spec patch {spec} --project NAME --task NAME --in-place",
        )  # fmt: skip
        return
    tracking = prepared.tracking
    own = "CLEARML_API_ACCESS_KEY" in {name for name, _ in prepared.place.mounts.environment}
    if own:
        yield PreflightCheck(name="ClearML", status="ok", fact="credentials are those of the mounts file")
    elif tracking is None:
        yield PreflightCheck(
            name="ClearML", status="wrong", fact="is asked for by the spec, and not configured here",
            remedy="clearml-init, or CLEARML_API_HOST and its keys; or --no-clearml",
        )  # fmt: skip
    else:
        trouble, seen = tracking.trouble()
        network = "; the container shares this machine's network" if tracking.on_loopback else ""
        yield PreflightCheck(
            name="ClearML", status="wrong" if trouble else "ok",
            fact=trouble or f"{tracking.api} takes the credentials of {tracking.origin}; "
            f"models are uploaded to {shown_value('', tracking.output_uri, ())}{network}",
            evidence=seen, remedy="check CLEARML_API_HOST or clearml.conf, or give --no-clearml" if trouble else "",
        )  # fmt: skip
