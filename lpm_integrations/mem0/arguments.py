"""What callers of Mem0's API pass, current style and old, as checked values."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from lpm_core.exceptions import InvalidInputError
from lpm_core.validation import check_messages, check_time, check_user_id
from lpm_integrations.mem0.catalogue import ENTITIES

__all__ = ["Said", "check_count", "check_metadata", "check_threshold", "drop_legacy", "owner_of", "said_at", "spoken"]

_log = logging.getLogger(__name__)

LEGACY: Final = frozenset(
    {"async_mode", "categories", "custom_categories", "custom_instructions", "enable_graph", "excludes", "expiration_date", "fields", "filter_memories"}
    | {"immutable", "includes", "keyword_search", "memory_type", "org_id", "output_format", "page", "page_size", "project_id", "prompt", "rerank", "version"}
)
"""Options of Mem0's platform that mean nothing here: taken, and without effect (but output_format, which `add` and `search` obey)."""

_OWNER_PREFIX = "mem0/"
_SPOKEN_DATES = ("%I:%M %p on %d %B, %Y", "%d %B, %Y", "%d %B %Y", "%B %d, %Y")
_ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Said:
    """One message to keep, and the name of who said it if the caller gave one."""

    role: str
    content: str
    actor_id: str | None


def spoken(messages: object) -> list[Said]:
    """Messages from a string, a mapping or a list of either. System and tool messages are left out, as Mem0 leaves out instructions.

    Of a content that is a list of parts, the text parts count. Raises InvalidInputError.
    """
    listed = [messages] if isinstance(messages, str | Mapping) else messages
    if not isinstance(listed, Sequence) or not listed:
        raise InvalidInputError(f"messages={messages!r}: pass a text, a message {{'role': …, 'content': …}}, or a non-empty list of them")
    plain = [{"role": "user", "content": item} if isinstance(item, str) else _plain(item) for item in listed]
    rows = check_messages(plain, "default")
    names = [item.get("name") if isinstance(item, Mapping) else None for item in listed]
    return [Said(role, content, str(name) if name else None) for (role, content, _), name in zip(rows, names, strict=True) if role in _ROLES]


def _plain(message: object) -> Any:
    if isinstance(message, Mapping) and isinstance(message.get("content"), list):
        parts = [part.get("text", "") for part in message["content"] if isinstance(part, Mapping) and part.get("type", "text") == "text"]
        return {**message, "content": "\n".join(part for part in parts if isinstance(part, str))}
    return message


def owner_of(user_id: str | None, agent_id: str | None, run_id: str | None) -> str:
    """The backend's user behind the given ids: user_id as it is, so that the same history serves every face of the engine.

    Raises InvalidInputError if no id is given, or one cannot be used.
    """
    given = {name: value for name, value in zip(ENTITIES, (user_id, agent_id, run_id), strict=True) if value is not None}
    if not given:
        raise InvalidInputError("no scope was given: pass user_id, agent_id or run_id")
    for name, value in given.items():
        check_user_id(value, name)
    if user_id is None:
        name, value = next(iter(given.items()))
        return f"{_OWNER_PREFIX}{name}/{value}"
    if user_id.startswith(_OWNER_PREFIX):
        raise InvalidInputError(f"user_id {user_id!r} begins with {_OWNER_PREFIX!r}, which is kept for agents and runs: choose another id")
    return user_id


def said_at(timestamp: object, metadata: Mapping[str, Any]) -> datetime:
    """When something was said: `timestamp` (Unix seconds, ISO 8601 or a datetime), else metadata["timestamp"] if it is a date, else now."""
    if timestamp is not None:
        return _moment(timestamp)
    try:
        return _moment(metadata.get("timestamp"))
    except InvalidInputError:
        return check_time(None)


def _moment(value: object) -> datetime:
    if isinstance(value, bool) or value is None:
        raise InvalidInputError(f"timestamp {value!r}: pass Unix seconds or an ISO 8601 time")
    if isinstance(value, int | float):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError, ValueError):
            raise InvalidInputError(f"timestamp {value!r} is out of range: pass Unix seconds") from None
    if isinstance(value, str):
        for form in _SPOKEN_DATES:
            try:
                return datetime.strptime(value.strip(), form).replace(tzinfo=UTC)
            except ValueError:
                continue
        return check_time(value)
    if isinstance(value, datetime):
        return check_time(value)
    raise InvalidInputError(f"timestamp {value!r}: pass Unix seconds or an ISO 8601 time")


def check_metadata(metadata: object) -> dict[str, Any]:
    """A mapping that JSON can hold. Raises InvalidInputError."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(f"metadata {metadata!r} is not a mapping: pass for example {{'topic': 'food'}}")
    try:
        kept: dict[str, Any] = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"metadata {metadata!r} cannot be written as JSON ({error}): pass strings, numbers, booleans, lists and mappings") from error
    return kept


def check_count(given: Iterable[int | None], default: int | None) -> int | None:
    """The first count that was given, at least 1. Raises InvalidInputError."""
    for value in given:
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"limit (top_k) is {value!r}: it is a whole number of at least 1")
            return value
    return default


def check_threshold(value: object) -> float | None:
    """A score from 0 to 1, or None. Raises InvalidInputError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInputError(f"threshold is {value!r}: it is a score from 0 to 1")
    return float(value)


def drop_legacy(call: str, options: Mapping[str, Any]) -> None:
    """Pass over options of Mem0's platform; raise InvalidInputError for what is no option of it either."""
    unknown = sorted(set(options) - LEGACY)
    if unknown:
        raise InvalidInputError(f"{call} has no option {unknown[0]!r}: it scopes by user_id, agent_id and run_id; check the spelling")
    if options:
        _log.debug("%s: %s have no effect here", call, ", ".join(sorted(options)))
