"""A turn as the row that holds it, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Role, Source, Turn
from lpm_core.storage.encryption import Owner
from lpm_core.storage.tables import SESSIONS, TURNS
from lpm_core.storage.values import NewTurn, checksum, microseconds, moment, named, raw, utf8

__all__ = ["TURN_COLUMNS", "check_turn", "decode_turn", "encode_turn"]

TURN_COLUMNS: Final = (
    *(TURNS.c.position, TURNS.c.id, SESSIONS.c.digest, SESSIONS.c.name),
    *(TURNS.c.role, TURNS.c.content, TURNS.c.at, TURNS.c.source, TURNS.c.checksum),
)
"""The columns that `decode_turn` takes, in this order."""


def check_turn(turn: NewTurn) -> dict[str, Any]:
    """The columns of a turn that do not depend on its place in the log. Raises InvalidInputError."""
    for name, value, allowed in (("role", turn.role, get_args(Role)), ("source", turn.source, get_args(Source))):
        if value not in allowed:
            raise InvalidInputError(f"{name} {value!r:.80} is none of {', '.join(allowed)}.")
    named(turn.session_id, "session_id")
    return {"role": turn.role, "source": turn.source, "content": utf8(turn.content, "content"), "at": microseconds(turn.at)}


def encode_turn(row: Mapping[str, Any], turn_id: str, position: int, owner: Owner, session_digest: str) -> dict[str, Any]:
    """The row of a turn at its place, without the keys of its user and session; `row` is what `check_turn` made of it."""
    place = (session_digest, turn_id, position, row["role"], row["source"], row["at"])
    content = owner.seal(row["content"], "turns", *place)
    return {**row, "id": turn_id, "position": position, "content": content, "checksum": checksum(content, owner.digest, *place)}


def decode_turn(user_id: str, owner: Owner, row: Sequence[Any]) -> Turn:
    """A turn from its TURN_COLUMNS. Raises ValueError, TypeError or OverflowError for a damaged row."""
    position, turn_id, session_digest, session, role, content, at, source, found = row
    name = owner.open(session, "sessions", session_digest)
    place = (owner.session_digest(name), turn_id, position, role, source, at)
    if found != checksum(raw(content), owner.digest, *place):
        raise ValueError("checksum")
    return Turn(turn_id, user_id, name.decode(), role, owner.open(content, "turns", *place).decode(), moment(at), source)
