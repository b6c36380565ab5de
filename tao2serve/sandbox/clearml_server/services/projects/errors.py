"""What ClearML says about projects."""

from __future__ import annotations

from ...call import COMPANY
from ...errors import ApiError, validation


def invalid_project_id(identifier: str) -> ApiError:
    """No such project."""
    return ApiError(400, 401, "Invalid project id", values={"id": identifier})


def invalid_name(name: str) -> ApiError:
    """A name without a single component."""
    return ApiError(400, 407, "Invalid project name", values={"name": name})


def blank_name() -> ApiError:
    """A path component is shorter than three characters."""
    return validation("Project name cannot be blank")


def duplicate(name: str) -> ApiError:
    """The name is taken."""
    values = {"name": name, "company": COMPANY}
    return ApiError(400, 801, "Project with the same name already exists", values=values)


def has_contents(kind: str, identifier: str) -> ApiError:
    """Deleting a project that is not empty needs force."""
    subcodes = {"tasks": 402, "models": 403}
    sentence = f"Project has associated {kind}"
    return ApiError(400, subcodes[kind], sentence, detail="use force=true", values={"id": identifier})
