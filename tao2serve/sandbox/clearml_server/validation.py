"""What a call's parameters must look like, and the sentences for those that do not.

Fields that a route does not declare pass through unchecked, as clients may send more than a server knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ApiError, validation

_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "dict": (dict,),
    "list": (list, tuple),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One parameter: its type, and for lists whether items are texts or objects with fields."""

    name: str
    type: str = "str"
    required: bool = False
    choices: tuple[str, ...] = ()
    min_items: int = 0
    items: tuple[Field, ...] = ()
    of_texts: bool = False
    nullable: bool = True


def text(name: str, *, required: bool = False, choices: tuple[str, ...] = ()) -> Field:
    """A string parameter."""
    return Field(name=name, required=required, choices=choices)


def listing(name: str, *, required: bool = False, min_items: int = 0, items: tuple[Field, ...] = ()) -> Field:
    """A list parameter; `items` describes its objects."""
    return Field(name=name, type="list", required=required, min_items=min_items, items=items)


def names(name: str, *, min_items: int = 0) -> Field:
    """A list of texts."""
    return Field(name=name, type="list", min_items=min_items, of_texts=True)


def flag(name: str) -> Field:
    """A boolean parameter."""
    return Field(name=name, type="bool")


def mapping(name: str, *, required: bool = False) -> Field:
    """An object parameter."""
    return Field(name=name, type="dict", required=required)


def check(fields: tuple[Field, ...], params: Mapping[str, Any]) -> None:
    """Raise the error of the first field that is wrong, or else of the first that is missing."""
    for field in fields:
        if field.name in params and params[field.name] is not None:
            problem = _problem(field, params[field.name])
            if problem:
                raise validation(f"error for field '{field.name}': {problem}.")
    for field in fields:
        if field.required and params.get(field.name) is None:
            raise validation(f"error for field '{field.name}'. field is required!")
        if field.min_items and params.get(field.name) is None:
            raise validation(f"error for field '{field.name}'. {_too_few('[]', field)}")


def names_in(params: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a parameter that lists names; a bare text is read letter by letter, as ClearML does."""
    value = params.get(name) or ()
    if not isinstance(value, str | list | tuple) or not all(isinstance(item, str) for item in value):
        raise validation(f"error for field '{name}': ('value is wrong, expected type \"list\"', {value!r}).")
    return tuple(value)


def number_in(params: Mapping[str, Any], name: str) -> int | None:
    """Return a whole number, also one written as text, as in a query."""
    value = params.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise validation(f"error for field '{name}': ('value is wrong, expected type \"int\"', {value!r}).") from error


def missing_fields(*names: str) -> ApiError:
    """Parameters that a call cannot do without."""
    return ApiError(400, 11, "Missing required fields", values={"missing": f"({', '.join(names)})"})


def _problem(field: Field, value: Any) -> str:
    if not _has_type(field, value):
        return f"('value is wrong, expected type \"{field.type}\"', {value!r})"
    if field.choices and value not in field.choices:
        return f"value {value!r} is not a valid choice."
    if field.min_items and len(value) < field.min_items:
        return _too_few(repr(value), field)
    wrong = [item for item in value if not isinstance(item, str)] if field.of_texts else []
    if wrong:
        return f"('value is wrong, expected type \"str\"', {wrong[0]!r})"
    for item in value if field.items else ():
        problem = _item_problem(field.items, item)
        if problem:
            return problem
    return ""


def _has_type(field: Field, value: Any) -> bool:
    return isinstance(value, _TYPES[field.type]) and not (field.type == "int" and isinstance(value, bool))


def _too_few(shown: str, field: Field) -> str:
    return f"value '{shown}' length is lower than allowed minimum '{field.min_items}'."


def _item_problem(fields: tuple[Field, ...], item: Any) -> str:
    if not isinstance(item, dict):
        return f"('value is wrong, expected type \"dict\"', {item!r})"
    for field in fields:
        if field.name not in item:
            continue
        if item[field.name] is None:
            if field.required and not field.nullable:
                return f"error for field '{field.name}': field is required!."
            continue
        problem = _problem(field, item[field.name])
        if problem:
            return f"error for field '{field.name}': {problem}."
    for field in fields:
        if field.required and item.get(field.name) is None:
            return f"(\"error for field '{field.name}'.\", validationerror('field is required!'))"
    return ""
