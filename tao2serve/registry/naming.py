"""Errors about fetched files, in the words of whoever named them by project, id or tag."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tao2serve.errors import InputError, ParityError, Tao2ServeError
from tao2serve.registry.source import ResolvedSource

__all__ = ["named_as_known"]


@contextlib.contextmanager
def named_as_known(source: ResolvedSource, *, made: Path) -> Iterator[None]:
    """Let errors name the ClearML model and task, not the temporary files that were fetched of them.

    What lies in `made`, a temporary folder too, is named by its file name in what is said of a model; where there is
    no room, or no right, the folder itself is what the user must know.
    """
    try:
        yield
    except Tao2ServeError as error:
        names = {str(path): name for path, name in source.known_as}
        if isinstance(error, InputError | ParityError):
            names[f"{made}/"] = ""
        for path, name in names.items():
            error.subject = error.subject.replace(path, name)
            error.fact = error.fact.replace(path, name)
            error.evidence = error.evidence.replace(path, name)
        error.args = (f"{error.subject}: {error.fact}",)
        raise
