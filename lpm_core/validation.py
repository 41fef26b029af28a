"""Checks of what comes in from outside. Every refusal names the value and the way out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast, get_args

from lpm_core.chat import Message
from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Role, Source

__all__ = [
    "MAX_ID",
    "MAX_MESSAGE",
    "check_age",
    "check_count",
    "check_dialogue",
    "check_examples",
    "check_messages",
    "check_number",
    "check_source",
    "check_time",
    "check_user_id",
    "parse_age",
]

MAX_ID = 512
"""Characters of a user or session id."""
MAX_MESSAGE = 1_000_000
"""Characters of one message."""
_SHOWN = 60


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _check_text(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{what} holds a lone surrogate at character {error.start}, which no UTF-8 text can; decode the text properly first") from None


def check_user_id(value: object, what: str = "user id") -> str:
    """An opaque string of 1 to 512 characters; any but NUL."""
    if not isinstance(value, str):
        raise InvalidInputError(f"the {what} is {_shown(value)}, not a string; pass str(id)")
    if not value.strip():
        raise InvalidInputError(f"the {what} is empty; every call names its user")
    if len(value) > MAX_ID:
        raise InvalidInputError(f"the {what} has {len(value)} characters, at most {MAX_ID} are allowed; pass a hash of it")
    if "\0" in value:
        raise InvalidInputError(f"the {what} {_shown(value)} holds a NUL character; remove it")
    _check_text(value, f"the {what}")
    return value


def check_time(value: datetime | str | None) -> datetime:
    """A moment in UTC: None is now, a string is ISO 8601, a time without a zone is UTC."""
    if value is None:
        return datetime.now(UTC)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidInputError(f"at={_shown(value)} is not an ISO 8601 time such as 2024-05-17T09:30:00+00:00") from None
    if not isinstance(value, datetime):
        raise InvalidInputError(f"at={_shown(value)} is neither a datetime nor an ISO 8601 text")
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(f"at={_shown(value.isoformat())} is outside the years 1 to 9999 in UTC; pass the moment it was said") from None


def check_age(value: timedelta) -> datetime:
    """The moment in UTC that lies so long ago."""
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise InvalidInputError(f"ttl={_shown(value)} is not a timedelta of zero or more, such as timedelta(days=30)")
    try:
        return datetime.now(UTC) - value
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def parse_age(value: str) -> timedelta:
    """An age such as 30d, 12h, 90m or 10s."""
    units = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    if not value[:-1].isdecimal() or value[-1:] not in units:
        raise InvalidInputError(f"ttl={_shown(value)} is not an age such as 30d, 12h, 90m or 10s")
    try:
        return timedelta(**{units[value[-1]]: int(value[:-1])})
    except OverflowError:
        return timedelta.max


def check_count(value: object, what: str, least: int) -> int:
    """A whole number of at least `least` that fits 63 bits. Raises InvalidInputError."""
    if not isinstance(value, int) or not least <= value < 2**63:
        raise InvalidInputError(f"{what}={_shown(value)}; pass a whole number from {least} up, below 2**63")
    return value


def check_number(value: object, what: str, most: float = math.inf) -> float:
    """A finite number from 0 to `most`. Raises InvalidInputError."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= most:
        raise InvalidInputError(f"{what}={_shown(value)}; pass a number from 0 {'up' if most == math.inf else f'to {most}'}")
    return float(value)


def check_source(source: object) -> Source:
    """One of the sources of a turn. Raises InvalidInputError."""
    if source not in get_args(Source):
        raise InvalidInputError(f"source={_shown(source)}; sources are {', '.join(get_args(Source))}")
    return cast(Source, source)


def check_messages(messages: object, session_id: str) -> list[tuple[Role, str, Source]]:
    """Role, content and source of each message; one text is one message of the user."""
    check_user_id(session_id, "session id")
    return [_check_message(message, number) for number, message in enumerate(_as_list(messages))]


def check_dialogue(messages: object) -> list[Message]:
    """Messages to be answered; one text is one message of the user. An assistant's message may have calls of tools instead of content."""
    rows = _as_list(messages)
    for number, message in enumerate(rows):
        calls = message.get("tool_calls") if isinstance(message, Mapping) else None
        if calls:
            _check_calls(message, calls, number)
        else:
            _check_message(message, number)
        for key, value in message.items():
            if isinstance(value, str):
                _check_text(value, f"{_shown(key)} of message {number}")
    return rows


def check_examples(examples: object) -> list[tuple[str, str]]:
    """Questions with their answers: at least two pairs of texts that say something. Raises InvalidInputError."""
    pairs = list(examples) if isinstance(examples, Sequence) and not isinstance(examples, str) else []
    for number, pair in enumerate(pairs):
        fits = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not fits or not all(isinstance(text, str) and text.strip() for text in pair):
            raise InvalidInputError(f"example {number} is {_shown(pair)}; pass (question, answer), two texts")
        for text in pair:
            _check_text(text, f"example {number}")
    if len(pairs) < 2:
        raise InvalidInputError(f"examples={_shown(examples)}; pass a list of two or more (question, answer): some are held out, to see whether others help")
    return [(str(question), str(answer)) for question, answer in pairs]


def _as_list(messages: object) -> list[Message]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping):
        return [messages]
    if not isinstance(messages, Sequence) or not messages:
        raise InvalidInputError(f"messages={_shown(messages)}: pass a text or a non-empty list of {{'role': …, 'content': …}}")
    return list(messages)


def _check_calls(message: Message, calls: object, number: int) -> None:
    _check_message({"role": message.get("role"), "content": message.get("content") or "-"}, number)
    if message["role"] != "assistant" or not isinstance(calls, Sequence):
        raise InvalidInputError(
            f"message {number} of role {message['role']!r} has tool_calls={_shown(calls)}; only an assistant calls tools, with a list of calls"
        )
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or "arguments" not in function:
            raise InvalidInputError(f"message {number} calls {_shown(call)}; a call is {{'name': …, 'arguments': …}}")
        try:
            written = json.dumps(function["arguments"], ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            raise InvalidInputError(f"message {number} calls {_shown(function['name'])} with arguments that JSON cannot hold; pass plain values") from None
        _check_text(function["name"] + written, f"a call in message {number}")


def _check_message(message: Message, number: int) -> tuple[Role, str, Source]:
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise InvalidInputError(f"message {number} is {_shown(message)}, not {{'role': …, 'content': …}}")
    role, content = message["role"], message["content"]
    if role not in get_args(Role):
        raise InvalidInputError(f"message {number} has the role {_shown(role)}; roles are {', '.join(get_args(Role))}")
    if not isinstance(content, str):
        raise InvalidInputError(f"message {number} has content of type {type(content).__name__}; only text can be remembered")
    if not content.strip():
        raise InvalidInputError(f"message {number} is empty; leave it out")
    if len(content) > MAX_MESSAGE:
        raise InvalidInputError(f"message {number} has {len(content)} characters, at most {MAX_MESSAGE} are allowed; split it")
    _check_text(content, f"message {number}")
    source = "import" if role == "system" else role
    return cast(Role, role), content, cast(Source, source)
