"""What a command's parameters stand for when it runs elsewhere: written beside each, in the command's own signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["INPUT", "KEPT", "MODEL", "NEVER_OVER", "OUTPUT", "THERE", "VALUE", "Carried", "OutputOf"]

Kind: TypeAlias = Literal["value", "input", "model", "output", "kept", "there"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What is carried to where the command runs, and what back.

    `value`: the words alone. `input`: a file or folder, uploaded. `model`: a file if it is one, with what lies beside
    it and belongs to it; else an id or a name. `output`: a folder that the command fills, brought back. `kept`: a file
    that is read if it is there, written anew and brought back. `there`: a path of the machine that runs it.
    """

    kind: Kind
    guarded: bool = False  # of an output: other content is replaced only with --force


VALUE: Final = Carried(kind="value")
INPUT: Final = Carried(kind="input")  # what every path is unless its command says otherwise
MODEL: Final = Carried(kind="model")
OUTPUT: Final = Carried(kind="output")
NEVER_OVER: Final = Carried(kind="output", guarded=True)
KEPT: Final = Carried(kind="kept")
THERE: Final = Carried(kind="there")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOf:
    """A place that a command fills, and the path here that it stands for."""

    place: str
    path: str
    is_file: bool = False
    guarded: bool = False
