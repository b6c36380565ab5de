"""What ClearML says about credentials."""

from __future__ import annotations

from ...errors import ApiError


def missing_credentials() -> ApiError:
    """No Authorization header, or one that cannot be read."""
    return ApiError(401, 20, "Unauthorized", detail="missing credentials")


def unknown_credentials() -> ApiError:
    """The key or the secret is wrong."""
    return ApiError(401, 22, "Unauthorized (invalid credentials)", detail="failed to locate provided credentials")


def invalid_token(reason: str) -> ApiError:
    """The bearer token is malformed, expired or not ours."""
    return ApiError(401, 30, "Invalid token", detail="invalid jwt token", values={"reason": reason})


def protected_identity() -> ApiError:
    """Credentials of this server are given at start and not made by calls."""
    return ApiError(400, 301, "Invalid user id", detail="protected identity")
