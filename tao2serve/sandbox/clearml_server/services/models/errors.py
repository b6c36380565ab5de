"""What ClearML says about models."""

from __future__ import annotations

from ...call import COMPANY
from ...errors import ApiError


def invalid_model_id(identifier: str) -> ApiError:
    """No such model."""
    return ApiError(400, 201, "Invalid model id", values={"company": COMPANY, "id": identifier})


def no_such_model(identifier: str) -> ApiError:
    """No such model, in the words of `get_by_id`."""
    values = {"id": identifier, "company": COMPANY}
    return ApiError(400, 201, "Invalid model id", detail="no such public or company model", values=values)


def already_ready(identifier: str) -> ApiError:
    """The model is published already."""
    return ApiError(400, 203, "Model is ready", values={"company": COMPANY, "model": identifier})


def in_use(count: int) -> ApiError:
    """Tasks use the model as input."""
    detail = "as execution model, use force=True to delete"
    return ApiError(400, 205, "Model is used by tasks", detail=detail, values={"num_tasks": count})


def maker_published(task: str) -> ApiError:
    """The task that made the model is published."""
    detail = "and published, use force=True to delete"
    sentence = "Task that created this model exists"
    return ApiError(400, 206, sentence, detail=detail, values={"task": task})


def invalid_project(identifier: str) -> ApiError:
    """The project of a new model does not exist."""
    values = {"project": identifier}
    return ApiError(400, 12, "Validation error", detail="Invalid project ids", values=values)


def invalid_label(name: str, value: object) -> ApiError:
    """Labels map names to whole numbers."""
    problem = f"ValidationError(Expected int or NoneType, got {type(value).__name__}: {value},)"
    return ApiError(400, 800, "Data validation error", values={"labels": f"{{{name!r}: {problem}}}"})


def not_a_mapping(field: str, reason: str) -> ApiError:
    """A field that must be an object is something else."""
    return ApiError(400, 16, "Invalid value for fields", detail=reason, values={"field": field})


def moved(replacement: str) -> ApiError:
    """The endpoint has left the API."""
    sentence = "This endpoint is no longer supported for the requested api version"
    return ApiError(301, 1, sentence, detail=f"use {replacement}")


def no_target() -> ApiError:
    """A move needs to know where to."""
    detail = "project or project_name is required"
    return ApiError(400, 11, "Missing required fields", detail=detail)
