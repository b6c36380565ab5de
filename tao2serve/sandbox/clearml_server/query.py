"""Filters, order and paging of the `get_all` calls: parameters in, a predicate and a slice out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .clock import parse_time
from .entity import Entity, check_path, lookup
from .errors import ApiError, validation
from .store import Doc
from .validation import names_in, number_in

Test = Callable[[Doc], bool]

_ALL = ("__$all", "__$and")
_ANY = ("__$any", "__$or")
_NOT = "__$not"
_LARGEST_PAGE = 500  # documents an answer holds at most
_COMPARISON = re.compile(r"^(>=|<=|>|<)?(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFilter:
    """Which values a field must and must not have; `every` joins the conditions with *and*."""

    include: tuple[str | None, ...] = ()
    exclude: tuple[str | None, ...] = ()
    every: bool = False
    joined: bool = False

    def accepts(self, values: Sequence[object]) -> bool:
        """Say whether a document with these values passes; None stands for *no value at all*."""
        have: tuple[object, ...] = tuple(values) or (None,)
        wanted = [value in have for value in self.include]
        spared = [value not in have for value in self.exclude]
        if self.every:
            return all(wanted) and all(spared)
        if self.joined:
            return any(wanted) or any(spared)
        return (any(wanted) if wanted else True) and all(spared)


def parse_list(values: Iterable[object]) -> ListFilter:
    """Read a filter list: plain values are alternatives, ``-x`` and what follows ``__$not`` exclude.

    A first ``__$all`` asks for all of them, a first ``__$any`` joins exclusions with *or* as well.
    """
    include: list[str | None] = []
    exclude: list[str | None] = []
    every = joined = negated = False
    for index, value in enumerate(values):
        if value in _ALL:
            every = every or index == 0
        elif value in _ANY:
            joined = joined or index == 0
        elif value == _NOT:
            negated = True
            continue
        elif isinstance(value, str) and value.startswith("-") and not negated:
            exclude.append(value[1:])
        else:
            (exclude if negated else include).append(value if isinstance(value, str) else None)
        negated = False
    return ListFilter(include=tuple(include), exclude=tuple(exclude), every=every, joined=joined)


def compile_pattern(pattern: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile a client's regular expression; 400 for a malformed one."""
    try:
        return re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ApiError(400, 21, "Malformed regular expression", values={"err": error, "extra_info": None}) from error


def as_list(value: object) -> list[object]:
    """A single value and a list of one are the same filter."""
    return list(value) if isinstance(value, list | tuple) else [value]


def predicate(entity: Entity, params: Mapping[str, Any]) -> Test:
    """Return the test that a document must pass; parameters that are no filter are ignored."""
    tests: list[Test] = []
    for name, value in params.items():
        if value is None or value == []:
            continue
        test = _test(entity, name, value)
        if test:
            tests.append(test)
    return lambda doc: all(test(doc) for test in tests)


def _test(entity: Entity, name: str, value: Any) -> Test | None:
    if name in entity.patterns and isinstance(value, str):
        pattern = compile_pattern(value)
        return lambda doc: bool(pattern.search(str(doc.get(name) or "")))
    if _named(entity.lists, name):
        wanted = parse_list(as_list(value))
        return lambda doc: wanted.accepts(_values(doc, name))
    if _named(entity.flags, name):
        return lambda doc: (lookup(doc, name) or False) == value
    if _named(entity.ranges, name):
        return _range_test(name, as_list(value))
    if name in entity.times:
        return _time_test(name, as_list(value))
    if name in ("_any_", "_all_") and isinstance(value, dict):
        return _search_test(value, every=name == "_all_")
    if name == "search_text":
        text = re.compile(re.escape(str(value)), re.IGNORECASE)
        return lambda doc: any(text.search(str(doc.get(field) or "")) for field in entity.patterns)
    if name == "filters" and isinstance(value, dict):
        return _filters_test(value)
    return None


def _named(names: Sequence[str], name: str) -> bool:
    """Say whether a filter is one of these; a name that ends in `.*` stands for all below it."""
    return any(name.startswith(one[:-1]) if one.endswith(".*") else name == one for one in names)


def _values(doc: Doc, path: str) -> list[object]:
    value = lookup(doc, path)
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _range_test(name: str, limits: list[Any]) -> Test:
    """Test for a value from low to high, both included; without a low limit, documents without a value pass too."""
    if len(limits) != 2:
        raise validation(f"Min and max values should be specified for range field {name}")
    if limits == [None, None]:
        raise validation(f"At least one of min or max values should be provided for field {name}")
    low, high = (None if limit is None else _moment(limit) for limit in limits)
    if (limits[0] is not None and low is None) or (limits[1] is not None and high is None):
        return lambda doc: False

    def inside(doc: Doc) -> bool:
        value = _moment(lookup(doc, name))
        if value is None:
            return low is None
        return (low is None or value >= low) and (high is None or value <= high)

    return inside


def _moment(value: object) -> Any:
    """Return a number, or a time, as something that can be compared; None for neither."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(str(value))
    except ValueError:
        return parse_time(str(value))


def _time_test(name: str, conditions: list[Any]) -> Test:
    if len(conditions) == 2 and not any(str(condition).startswith((">", "<")) for condition in conditions):
        return _range_test(name, conditions)
    tests = [_comparison(str(condition)) for condition in conditions if condition is not None]
    return lambda doc: all(test(parse_time(str(doc.get(name) or ""))) for test in tests)


def _comparison(condition: str) -> Callable[[Any], bool]:
    match = _COMPARISON.match(condition)
    operator, text = match.groups() if match else (None, condition)
    limit = parse_time(text)
    if limit is None:
        raise validation(f"Invalid date {text}")
    compare: dict[str | None, Callable[[Any], bool]] = {
        ">=": lambda moment: moment >= limit,
        "<=": lambda moment: moment <= limit,
        ">": lambda moment: moment > limit,
        "<": lambda moment: moment < limit,
        None: lambda moment: bool(moment == limit),
    }
    return lambda moment: moment is not None and compare[operator](moment)


def _search_test(value: Mapping[str, Any], *, every: bool) -> Test:
    fields = names_in(value, "fields")
    if "pattern" not in value:
        return lambda doc: True
    pattern = compile_pattern(str(value["pattern"]), ignore_case=True)
    join = all if every else any
    return lambda doc: join(any(pattern.search(str(item)) for item in _values(doc, field)) for field in fields)


def _filters_test(value: Mapping[str, Any]) -> Test:
    tests: list[tuple[str, ListFilter]] = []
    for field, rules in value.items():
        for operator, rule in rules.items() if isinstance(rules, dict) else ():
            if operator in ("any", "all") and isinstance(rule, dict):
                parsed = ListFilter(
                    include=names_in(rule, "include"),
                    exclude=names_in(rule, "exclude"),
                    every=operator == "all",
                    joined=operator == "any",
                )
                tests.append((field, parsed))
    return lambda doc: all(rule.accepts(_values(doc, field)) for field, rule in tests)


def order_fields(entity: Entity, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields of `order_by`, checked; orders by text score mean nothing here."""
    fields = names_in(params, "order_by")
    for field in fields:
        if not field.lstrip("-").startswith("@"):
            check_path(entity, field.removeprefix("-"))
    return tuple(field for field in fields if not field.lstrip("-").startswith("@"))


def ordered(docs: list[Doc], fields: Sequence[str]) -> list[Doc]:
    """Sort by the fields, missing values last; ties keep the order of creation."""
    for field in reversed(fields):
        descending, path = field.startswith("-"), field.removeprefix("-")
        filled = [doc for doc in docs if _values(doc, path)]
        empty = [doc for doc in docs if not _values(doc, path)]
        filled.sort(key=lambda doc: _sort_key(_values(doc, path), descending), reverse=descending)
        docs = filled + empty
    return docs


def _sort_key(values: list[object], descending: bool) -> tuple[int, Any]:
    keys = [_rank(value) for value in values]
    return max(keys) if descending else min(keys)


def _rank(value: object) -> tuple[int, Any]:
    if isinstance(value, bool):
        return 3, value
    if isinstance(value, int | float):
        return 1, value
    return (2, value) if isinstance(value, str) else (4, repr(value))


def page(docs: list[Doc], params: Mapping[str, Any]) -> list[Doc]:
    """Return the slice that `page`/`page_size` or `start`/`size` ask for, 500 at most; past the end it is empty."""
    number, size = number_in(params, "page"), number_in(params, "page_size")
    if number is not None and number < 0:
        raise ApiError(400, 12, "Validation error", detail="page must be >=0", values={"field": "page"})
    if size is not None and size < 1:
        raise ApiError(400, 12, "Validation error", detail="page_size must be >0", values={"field": "page_size"})
    first, count = number_in(params, "start"), number_in(params, "size")
    if first is not None and count:
        return docs[first : first + count]
    size = min(size or _LARGEST_PAGE, _LARGEST_PAGE)
    return docs[(number or 0) * size :][:size]
