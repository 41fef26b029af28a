"""What goes into the columns and comes out of them: ids, text and times."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar, get_args

from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Role, Source, Turn

__all__ = [
    "AuditRow",
    "NewTurn",
    "Removed",
    "batches",
    "checksum",
    "decode_turn",
    "encode_turn",
    "is_named",
    "known_form",
    "microseconds",
    "moment",
    "named",
    "plain",
    "raw",
    "text",
    "turn_checksum",
]

_Id = TypeVar("_Id", int, str)

_BATCH = 500  # ids in one statement; databases limit the parameters of a statement
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TURN_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class NewTurn:
    """A turn on its way into the log. `at` carries a time zone and is kept in UTC, to the microsecond."""

    session_id: str
    role: Role
    content: str
    at: datetime
    source: Source


@dataclass(frozen=True)
class AuditRow:
    """What was done to a user's history, and when: "remember", "forget" or "forget_user". Never content."""

    action: str
    at: datetime
    turn_ids: tuple[str, ...]


class Removed(NamedTuple):
    """What a deletion took away: the ids of the turns, and how many pages and whole sessions."""

    turn_ids: tuple[str, ...]
    pages: int
    sessions: int


def encode_turn(turn: NewTurn) -> dict[str, Any]:
    """The columns of a turn that do not depend on its place in the log. Raises InvalidInputError."""
    for name, value, allowed in (("role", turn.role, get_args(Role)), ("source", turn.source, get_args(Source))):
        if value not in allowed:
            raise InvalidInputError(f"{name} {value!r:.80} is none of {', '.join(allowed)}.")
    named(turn.session_id, "session_id")
    return {"role": turn.role, "source": turn.source, "content": utf8(turn.content, "content"), "at": microseconds(turn.at)}


def utf8(text: str, name: str) -> bytes:
    """Text as it is stored. Raises InvalidInputError for what is not text."""
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} must be a str, not {type(text).__name__}.")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{name} has a lone surrogate at character {error.start}, which is no text. Decode its source again, or drop it.") from None


def plain(text: str, name: str) -> str:
    """`text` itself, once it is known to be text."""
    utf8(text, name)
    return text


def named(text: str, name: str) -> tuple[bytes, str]:
    """An id as UTF-8 and as the digest it is found by."""
    data = utf8(text, name)
    return data, hashlib.sha256(data).hexdigest()


def is_named(name: object, digest: object) -> bool:
    """Whether a stored id is the one that its stored digest was made of."""
    return isinstance(name, (bytes, memoryview)) and hashlib.sha256(name).hexdigest() == digest


def known_form(turn_ids: Iterable[str]) -> list[str]:
    """The ids that could be turn ids, once each. The others cannot name a turn, and some databases cannot even be asked for them."""
    if isinstance(turn_ids, str):
        raise InvalidInputError("turn_ids must be several ids, not one str. Put it in a list.")
    return [turn_id for turn_id in dict.fromkeys(turn_ids) if isinstance(turn_id, str) and _TURN_ID.fullmatch(turn_id)]


def batches(ids: Sequence[_Id]) -> list[Sequence[_Id]]:
    """Ids in portions that one statement takes."""
    return [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]


def microseconds(at: datetime) -> int:
    """A time as it is stored: since 1970, in UTC. Raises InvalidInputError."""
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise InvalidInputError("at must be a datetime with a time zone, such as datetime.now(UTC).")
    try:
        count = (at - _EPOCH) // _MICROSECOND
        moment(count)
    except OverflowError:
        raise InvalidInputError(f"at {at.isoformat()} is outside the years 1 to 9999 in UTC.") from None
    return count


def moment(count: int) -> datetime:
    """A stored time. Raises OverflowError or TypeError for a damaged one."""
    return _EPOCH + timedelta(microseconds=count)


def raw(value: object) -> bytes:
    """A column of bytes as the drivers give it."""
    if isinstance(value, (bytes, memoryview)):
        return bytes(value)
    raise TypeError(type(value).__name__)


def text(value: object) -> str:
    """A column of UTF-8. Raises TypeError or ValueError for a damaged one."""
    return raw(value).decode()


def checksum(data: bytes, *fields: object) -> str:
    """SHA-256 over a row and whose it is: a row in another user's history is as wrong as a flipped bit."""
    return hashlib.sha256(json.dumps(fields, default=repr).encode() + b"\0" + data).hexdigest()


def turn_checksum(user_digest: str, session_digest: str, turn_id: object, position: object, role: object, source: object, at: object, content: bytes) -> str:
    """The checksum of a turn's row."""
    return checksum(content, user_digest, session_digest, turn_id, position, role, source, at)


def decode_turn(user_id: str, user_digest: str, row: Sequence[Any]) -> Turn:
    """A turn from the columns of a `turn_query` row. Raises ValueError, TypeError or OverflowError for a damaged row."""
    position, turn_id, session, role, content, at, source, found = row
    session_digest = hashlib.sha256(raw(session)).hexdigest()
    if found != turn_checksum(user_digest, session_digest, turn_id, position, role, source, at, raw(content)):
        raise ValueError("checksum")
    return Turn(turn_id, user_id, text(session), role, text(content), moment(at), source)
