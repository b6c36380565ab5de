"""The file of tuned settings: what `loadtest --tune` proposes and `deploy --tuned` takes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, cast

from tao2serve.config import Settings
from tao2serve.errors import InputError

__all__ = ["TUNED", "Tuned", "checked", "read_tuned", "render_tuned"]

TUNED: Final = ("placement", "instances", "max_batch_size", "queue_delay_us")
_TABLE: Final = "made_for"
_NOT_KNOWN: Final = "not known"
_HINT: Final = "take the file that `loadtest --tune` wrote; settings of your own go into tao2serve.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Proposed settings, and what they were measured with."""

    settings: Mapping[str, Any]
    source_sha256: str  # of the trained weights
    precision: str
    model_sha256: str = ""  # of the file that was served
    hardware: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path("tuned.toml")

    def other_hardware(self, here: Mapping[str, str]) -> str:
        """Say how it was measured on other hardware than that; "" if it was not.

        What only one of the two tells may be other hardware, so it is said too.
        """
        names = dict.fromkeys((*self.hardware, *here))
        both = ((name, self.hardware.get(name) or _NOT_KNOWN, here.get(name) or _NOT_KNOWN) for name in names)
        return "; ".join(f"{name} {there}, here {now}" for name, there, now in both if there != now)


def render_tuned(tuned: Tuned, *, comment: Sequence[str] = ()) -> str:
    """Return the file's text, which `read_tuned` reads; the lines of settings fit into tao2serve.toml too."""
    made_for = {"source_sha256": tuned.source_sha256, "precision": tuned.precision, "model_sha256": tuned.model_sha256}
    return "\n".join([
        *(f"# {line}".rstrip() for text in comment for line in text.splitlines() or [""]),
        *(f"{name} = {json.dumps(value)}" for name, value in tuned.settings.items()),
        "",
        f"[{_TABLE}]",
        *(f"{name} = {_string(value)}" for name, value in made_for.items()),
        "",
        f"[{_TABLE}.hardware]",
        *(f"{json.dumps(name)} = {_string(value)}" for name, value in tuned.hardware.items()),
        "",
    ])  # fmt: skip


def read_tuned(path: Path) -> Tuned:
    """Read such a file; raises InputError if it is not there, is no such file, or has a value that no setting can."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error), hint=_HINT) from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested beyond all use
        raise InputError(str(path), "cannot be read as TOML", evidence=str(error), hint=_HINT) from error
    made_for = said.pop(_TABLE, None)
    if not isinstance(made_for, dict) or not made_for.get("source_sha256"):
        raise InputError(str(path), f"does not say which model it was made for ([{_TABLE}])", hint=_HINT)
    strange = sorted(set(said) - set(TUNED))
    if strange:
        raise InputError(str(path), f"has {strange[0]!r}", evidence=f"it may set {', '.join(TUNED)}", hint=_HINT)
    _check_values(path, said)
    hardware = made_for.get("hardware")
    return Tuned(
        settings=said,
        source_sha256=str(made_for["source_sha256"]),
        precision=str(made_for.get("precision", "")),
        model_sha256=str(made_for.get("model_sha256", "")),
        hardware={str(k): str(v) for k, v in hardware.items()} if isinstance(hardware, dict) else {},
        path=path,
    )


def checked(name: str, value: object) -> Any:
    """Return a value as the setting of that name takes it; raises pydantic's ValidationError if it takes none such."""
    from pydantic import TypeAdapter

    field, annotated = Settings.model_fields[name], cast(Any, Annotated)
    return TypeAdapter(annotated[field.annotation, name, *field.metadata]).validate_python(value)


def _check_values(path: Path, said: Mapping[str, Any]) -> None:
    from pydantic import ValidationError

    for name, value in said.items():
        try:
            checked(name, value)
        except ValidationError as error:
            fact = f"sets {name} to {value!r}: {error.errors()[0]['msg']}"
            raise InputError(str(path), fact, hint=_HINT) from error


def _string(text: str) -> str:
    """JSON's strings are TOML's, but for characters beyond the sixteen-bit plane, which are left as they are."""
    return json.dumps(text, ensure_ascii=False)
