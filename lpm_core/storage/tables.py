"""The tables, as queries name them. Their types and constraints are in `lpm_core.migrations`."""

from __future__ import annotations

from sqlalchemy import TableClause, column, table

__all__ = ["AUDIT", "META", "PAGES", "SESSIONS", "TURNS", "USERS"]


def _table(name: str, *columns: str) -> TableClause:
    return table(name, *map(column, columns))


# Columns have no types here: values arrive as the driver read them, so that a damaged row fails its check and not the whole query.
META = _table("meta", "key", "value")
USERS = _table("users", "key", "digest", "name", "version", "last_position", "turn_count", "data_key")
SESSIONS = _table("sessions", "key", "user_key", "digest", "name")
TURNS = _table("turns", "id", "user_key", "session_key", "position", "role", "source", "at", "content", "checksum")
_PAGE = ("key", "session_key", "page_index", "first_position", "slots", "slot_turns", "turn_ids", "tokens", "backbone", "weights", "quarantine", "checksum")
PAGES = _table("pages", *_PAGE)
AUDIT = _table("audit", "key", "user_key", "action", "at", "turn_ids")
