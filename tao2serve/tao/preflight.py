"""What a run of TAO needs of this machine, looked at before it begins: minutes of waiting end in a line otherwise."""

from __future__ import annotations

import glob
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeAlias

from tao2serve.errors import InputError
from tao2serve.tao.place import Place
from tao2serve.tao.running import child_environment
from tao2serve.tao.spec_check import check_spec
from tao2serve.tao.spec_tree import parse_tree
from tao2serve.tao.spec_view import root_view
from tao2serve.tao.subtask import IMAGES, Group
from tao2serve.tao.text import read_text

__all__ = ["PreflightCheck", "check_key", "check_machine", "check_paths", "check_spec_file", "paths_in"]

Status: TypeAlias = Literal["ok", "wrong", "skipped"]
_LIMIT_S: Final = 15.0
_REGISTRY: Final = "nvcr.io"
# nvidia-tao 6.26.3 looks for images there whatever DOCKER_HOST says (docker_handler.py).
_SOCKET: Final = Path("/var/run/docker.sock")
_LOGIN: Final = f"docker login {_REGISTRY}   (user name $oauthtoken, password: an NGC API key)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightCheck:
    """What was found about one thing; `wrong` would end the run."""

    name: str
    status: Status
    fact: str
    evidence: str = ""
    remedy: str = ""


def check_machine(place: Place, group: Group) -> Iterator[PreflightCheck]:
    """Look at the GPU, at Docker, and at the login to NVIDIA's registry."""
    remote = os.environ.get("DOCKER_HOST", "").startswith(("tcp:", "ssh:", "http")) and place.way != "inside"
    yield _gpu(remote=remote)
    if place.way == "inside":
        yield PreflightCheck(name="TAO", status="ok", fact=f"runs here, by {place.program}")
        return
    yield from _docker(place)
    yield _login(place, group)


def _gpu(*, remote: bool) -> PreflightCheck:
    if remote:
        fact = "is that of another machine: DOCKER_HOST names it"
        return PreflightCheck(name="GPU", status="skipped", fact=fact)
    code, said = _run("nvidia-smi", "-L")
    found = [line for line in said.splitlines() if line.startswith("GPU ")]
    if found:
        return PreflightCheck(name="GPU", status="ok", fact=found[0].partition(" (UUID")[0] + f", {len(found)} in all")
    return PreflightCheck(
        name="GPU", status="wrong", fact="none is seen by nvidia-smi, and TAO runs on nothing else",
        evidence=said[-200:] or ("nvidia-smi is not on PATH" if code is None else f"exit code {code}"),
        remedy="run this on a machine with an NVIDIA GPU and its driver",
    )  # fmt: skip


def _docker(place: Place) -> Iterator[PreflightCheck]:
    # The launcher calls the command docker as well.
    program = str(place.program) if place.way == "docker" else "docker"
    code, said = _run(program, "version", "--format", "{{.Server.Version}}")
    if code == 0 and said:
        yield PreflightCheck(name="Docker", status="ok", fact=f"engine {said.splitlines()[-1]}")
    else:
        yield PreflightCheck(
            name="Docker", status="wrong",
            fact="the command docker is not here" if code is None else "no engine answers",
            evidence=said[-300:],
            remedy="install Docker and the NVIDIA Container Toolkit, start it, and be in the group docker",
        )  # fmt: skip
    if place.way == "launcher" and not _is_usable_socket(_SOCKET):
        named = os.environ.get("DOCKER_HOST", "")
        yield PreflightCheck(
            name="Docker's socket", status="wrong",
            fact=f"{_SOCKET} cannot be used, and the launcher looks nowhere else",
            evidence=f"DOCKER_HOST is {named}" if named else "",
            remedy="be in the group docker, or leave the launcher out: --via docker",
        )  # fmt: skip


def _is_usable_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except OSError:
        return False


def _login(place: Place, group: Group) -> PreflightCheck:
    image = place.image or IMAGES[group]
    if place.way == "docker":
        code, _ = _run(str(place.program), "image", "inspect", image)
        if code == 0:
            return PreflightCheck(name="image", status="ok", fact=f"{image} is here")
        if not image.startswith(f"{_REGISTRY}/"):
            return PreflightCheck(name="image", status="skipped", fact=f"{image} will be fetched")
    elif os.environ.get("OVERRIDE_REGISTRY"):
        return PreflightCheck(name="login", status="skipped", fact="OVERRIDE_REGISTRY has the launcher ask for none")
    folder = os.environ.get("DOCKER_CONFIG") if place.way == "docker" else None
    path = Path(folder or "~/.docker").expanduser() / "config.json"
    document = _json(path)
    # The launcher looks at nothing but `auths`.
    where = ("auths", "credHelpers") if place.way == "docker" else ("auths",)
    if any(_REGISTRY in found for name in where if isinstance(found := document.get(name), dict)):
        return PreflightCheck(name="login", status="ok", fact=f"{path} has one to {_REGISTRY}")
    return PreflightCheck(
        name="login", status="wrong", fact=f"{path} has none to {_REGISTRY}, where NVIDIA's images are", remedy=_LOGIN
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def check_key(key: str, models: Sequence[Path]) -> PreflightCheck:
    """Say whether the key that these models need is given; it is not tried."""
    encrypted = [model.name for model in models if model.suffix in (".tlt", ".etlt")]
    if key:
        return PreflightCheck(name="key", status="ok", fact="is given, and will be on no command line")
    if encrypted:
        return PreflightCheck(
            name="key", status="wrong", fact=f"is not given, and {encrypted[0]} opens with nothing else",
            remedy="put it into a file, and give --key-file FILE",
        )  # fmt: skip
    return PreflightCheck(name="key", status="ok", fact="none is given, and none is needed: TAO 5.0's .hdf5 is open")


def check_spec_file(spec: Path) -> PreflightCheck:
    """Say whether TAO would take the spec."""
    findings = [finding for finding in check_spec(spec).findings if finding.stage != "serving"]
    errors = [finding for finding in findings if finding.severity == "error" or finding.ends_training]
    if not errors:
        said = f"{len(findings)} to be warned of" if findings else "nothing to be warned of"
        return PreflightCheck(
            name="spec", status="ok", fact=f"{spec} has no error for training, and {said}",
            remedy=f"tao2serve spec check {spec}" if findings else "",
        )  # fmt: skip
    first = errors[0]
    return PreflightCheck(
        name="spec", status="wrong", fact=f"{spec} has {len(errors)} that TAO or ClearML refuses",
        evidence=f"line {first.line}: {first.field} {first.problem}", remedy=f"tao2serve spec check {spec}",
    )  # fmt: skip


def paths_in(spec: Path) -> Iterator[tuple[str, str]]:
    """Yield the fields of a training spec that name files, and what they name, as the container sees it."""
    root = root_view(parse_tree(read_text(spec)))
    dataset = root.message("dataset_config")
    sources = (*dataset.messages("data_sources"), *dataset.messages("validation_data_source"))
    for source in sources:
        for name in ("tfrecords_path", "image_directory_path"):
            if source.text(name):
                yield source.at(name), source.text(name)
    model = root.message("model_config")
    if model.text("pretrained_model_file"):
        yield model.at("pretrained_model_file"), model.text("pretrained_model_file")


def check_paths(spec: Path, place: Place, *, expected: Sequence[str] = ()) -> Iterator[PreflightCheck]:
    """Look for all files the spec names, through the mounts; those `expected` come to be in the run itself."""
    seen = 0
    try:
        named = list(paths_in(spec))
    except (InputError, ValueError):
        return  # the spec is no spec, which has been said
    for field, path in named:
        if path in expected or not path.startswith("/"):
            continue
        outside = Path(path) if place.way == "inside" else place.mounts.outside(PurePosixPath(path))
        if outside is None:
            yield PreflightCheck(
                name="mounts", status="wrong", fact=f"{field} names {path}, which no mount shows",
                remedy="add it to ~/.tao_mounts.json, or give --mount FOLDER:FOLDER_IN_CONTAINER",
            )  # fmt: skip
        elif not glob.glob(str(outside)):  # noqa: PTH207 - tfrecords_path is a pattern from the root
            yield PreflightCheck(
                name="mounts", status="wrong", fact=f"{field} names {path}, and nothing is there",
                evidence=f"on this machine: {outside}", remedy="correct the spec, or the mount",
            )  # fmt: skip
        else:
            seen += 1
    if seen:
        yield PreflightCheck(name="mounts", status="ok", fact=f"{seen} files and folders of the spec are there")


def _run(*words: str) -> tuple[int | None, str]:
    """Return a program's exit code and what it said; None if it is not here or does not answer."""
    program = shutil.which(words[0])
    if program is None:
        return None, ""
    try:
        done = subprocess.run(
            [program, *words[1:]], env=child_environment({}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return -1, type(error).__name__
    return done.returncode, done.stdout.strip()
