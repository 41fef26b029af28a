"""Mem0's filters: conditions on a memory's owners, metadata and times, with AND, OR and NOT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lpm_core.exceptions import InvalidInputError
from lpm_integrations.mem0.catalogue import ENTITIES, Record

__all__ = ["check_filters", "matches", "scope_of"]

_ABSENT: Final = object()
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}
_OPERATORS = ("eq", "ne", "in", "nin", "contains", "icontains", *_ORDERS)
_WAY_OUT = "pass user_id, agent_id or run_id, as an argument or inside filters"


def check_filters(filters: object) -> dict[str, Any]:
    """Filters whose shape is right. Raises InvalidInputError that names the part that is not."""
    if not isinstance(filters, Mapping):
        raise InvalidInputError(f"filters {filters!r} is not a mapping: pass for example {{'user_id': 'ann'}}")
    for key, wanted in filters.items():
        if key in ("AND", "OR", "NOT"):
            parts = [wanted] if key == "NOT" and isinstance(wanted, Mapping) else wanted
            if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
                raise InvalidInputError(f"filters {key!r} is {wanted!r}: pass a list of filters that is not empty")
            for part in parts:
                check_filters(part)
        elif isinstance(wanted, Mapping):
            unknown = [name for name in wanted if name not in _OPERATORS]
            if unknown or not wanted:
                raise InvalidInputError(f"filters {key!r} has the operator {unknown!r}; operators are {', '.join(_OPERATORS)}")
    return dict(filters)


def scope_of(filters: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(entity, id) pairs of which every memory that these filters allow has at least one. Raises InvalidInputError if there are none."""
    found = _scope(filters)
    if not found:
        raise InvalidInputError(f"no scope was given: {_WAY_OUT}")
    return found


def matches(record: Record, filters: Mapping[str, Any]) -> bool:
    """Whether a memory satisfies all conditions."""
    return all(_holds(record, key, wanted) for key, wanted in filters.items())


def _scope(filters: Mapping[str, Any]) -> set[tuple[str, str]]:
    for entity in ENTITIES:
        wanted = filters.get(entity)
        if isinstance(wanted, Mapping):
            wanted = [wanted["eq"]] if "eq" in wanted else wanted.get("in")
        names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list | tuple | set) else []
        pairs = {(entity, name) for name in names if isinstance(name, str) and name.strip() and name != "*"}
        if pairs:
            return pairs
    for part in filters.get("AND", ()):
        if found := _scope(part):
            return found
    branches = [_scope(part) for part in filters.get("OR", ())]
    return set().union(*branches) if branches and all(branches) else set()


def _holds(record: Record, key: str, wanted: Any) -> bool:
    if key == "AND":
        return all(matches(record, part) for part in wanted)
    if key == "OR":
        return any(matches(record, part) for part in wanted)
    if key == "NOT":
        return not any(matches(record, part) for part in ([wanted] if isinstance(wanted, Mapping) else wanted))
    value = getattr(record, key) if key in (*ENTITIES, "actor_id", "role", "created_at", "updated_at") else record.metadata.get(key, _ABSENT)
    if isinstance(wanted, Mapping):
        return all(_compare(value, operator, bound) for operator, bound in wanted.items())
    if wanted == "*":
        return value is not _ABSENT and value is not None
    return value in wanted if isinstance(wanted, list | tuple | set) else value == wanted


def _compare(value: Any, operator: str, bound: Any) -> bool:
    if operator in ("eq", "ne"):
        return bool(value == bound) is (operator == "eq")
    if operator in ("in", "nin"):
        return (value in bound) is (operator == "in")
    if value is _ABSENT or value is None:
        return False
    if operator in ("contains", "icontains"):
        inside, part = (str(value).casefold(), str(bound).casefold()) if operator == "icontains" else (value if isinstance(value, list) else str(value), bound)
        return part in inside
    try:
        return _ORDERS[operator](value, bound)
    except TypeError:
        return False
