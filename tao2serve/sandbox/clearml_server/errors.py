"""The one error of the wire: a code, a subcode, a sentence, and the values the sentence names."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """An answer other than 200; the text is ``sentence (detail): key=value, key=value``."""

    def __init__(
        self,
        code: int,
        subcode: int,
        sentence: str,
        *,
        detail: str = "",
        values: Mapping[str, object] | None = None,
    ) -> None:
        self.code = code
        self.subcode = subcode
        self.values = dict(values or {})
        text = f"{sentence} ({detail})" if detail else sentence
        if self.values:
            text += ": " + ", ".join(f"{key}={value}" for key, value in self.values.items())
        super().__init__(text)

    @property
    def message(self) -> str:
        """The `result_msg` of the envelope."""
        return str(self.args[0])

    def as_failure(self) -> dict[str, object]:
        """Return the `error` member that bulk calls give for one id."""
        return {"codes": [self.code, self.subcode], "msg": self.message, "data": dict(self.values)}


def validation(detail: str) -> ApiError:
    """A field is missing, has the wrong type, or a value that is not allowed."""
    return ApiError(400, 12, "Validation error", detail=detail)


def too_short(field: str) -> ApiError:
    """A stored name needs three characters."""
    return ApiError(400, 800, "Data validation error", values={field: "String value is too short"})


def unresolved_field(name: str) -> ApiError:
    """A projection or an order names a field the entity does not have."""
    return ApiError(
        400,
        14,
        "Lookup error (probably an invalid field name or unsupported nested field)",
        values={"err": f'Cannot resolve field "{name}"'},
    )


def invalid_reference(kind: str, identifier: str, field: str) -> ApiError:
    """A field refers to a document that does not exist."""
    return ApiError(
        400,
        16,
        "Invalid value for fields",
        detail=f"expecting {kind} id",
        values={"id": identifier, "field": field},
    )


def forbidden(allowed: str) -> ApiError:
    """The endpoint exists, and ordinary users may not call it."""
    return ApiError(
        403,
        20,
        "Forbidden",
        detail="not allowed for role",
        values={"role": "user", "allowed": f"({allowed})"},
    )


def unsupported(endpoint: str) -> ApiError:
    """The endpoint exists in ClearML and not here; 400, because clients retry without end above 500."""
    return ApiError(400, 0, f"The sandbox server does not support {endpoint}")
