"""What goes into the columns and comes out of them: ids, text and times."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Role, Source

__all__ = [
    "AuditRow",
    "DamagedRowError",
    "NewTurn",
    "Removed",
    "batches",
    "checksum",
    "known_form",
    "microseconds",
    "moment",
    "named",
    "plain",
    "raw",
    "utf8",
    "written",
]

_Id = TypeVar("_Id", int, str)

_BATCH = 500  # ids in one statement; databases limit the parameters of a statement
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_JSON: Final = json.JSONEncoder(default=repr)
_TURN_ID: Final = re.compile(r"[0-9a-f]{32}")


class DamagedRowError(ValueError):
    """A row that fails its check; `Database.begin` makes a StoreCorruptError of it. The message never holds content."""


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
    """What was done to a user's history, and when: "remember", "import", "forget", "forget_user" or "release". Never content."""

    action: str
    at: datetime
    turn_ids: tuple[str, ...]


class Removed(NamedTuple):
    """What a deletion took away: the ids of the turns, and how many pages and whole sessions."""

    turn_ids: tuple[str, ...]
    pages: int
    sessions: int


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


def checksum(data: bytes, *fields: object) -> str:
    """SHA-256 over a row and whose it is: a row in another user's history is as wrong as a flipped bit."""
    return hashlib.sha256(written(fields) + b"\0" + data).hexdigest()


def written(fields: Sequence[object]) -> bytes:
    """Fields as bytes that no other fields give."""
    return _JSON.encode(fields).encode()
