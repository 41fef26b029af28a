"""How much a store holds: counts, sizes and times, and no content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, true

from lpm_core.exceptions import UnknownUserError
from lpm_core.migrations import schema_version
from lpm_core.storage.tables import PAGES, SESSIONS, TURNS, USERS
from lpm_core.storage.values import DamagedRowError, moment, named
from lpm_core.store import MemoryStore

__all__ = ["Stats", "store_stats"]

_STREAM = 500  # rows read at a time


@dataclass(frozen=True)
class Stats:
    """What a store holds of one user, or of all.

    users: those with turns. turns: how many, by source. pages: those that are served; quarantined: those that are not. slots: N of the
    pages served, each d_mem numbers for every head. log_bytes, page_bytes: texts and slots as they are stored. oldest, newest: when the
    first and the last of the turns were said. schema: version of the whole store's tables. encrypted: whether it has keys.
    """

    users: int
    sessions: int
    turns: Mapping[str, int]
    pages: int
    quarantined: int
    slots: int
    log_bytes: int
    page_bytes: int
    oldest: datetime | None
    newest: datetime | None
    schema: int
    encrypted: bool


def store_stats(store: MemoryStore, user_id: str | None = None) -> Stats:
    """The figures of one user, or (None) of all.

    Raises UnknownUserError for a user who was never seen, StoreCorruptError for rows that cannot be counted.
    """
    if user_id is not None and not store.exists(user_id):
        raise UnknownUserError(f"there is no user {user_id!r} in this store; `lpm users` lists those there are")
    database = store.database
    whose = true() if user_id is None else USERS.c.digest == database.keyring.digest(named(user_id, "user_id")[1])
    by_source = (
        select(TURNS.c.source, func.count(), func.sum(func.length(TURNS.c.content)), func.min(TURNS.c.at), func.max(TURNS.c.at))
        .join_from(TURNS, USERS, USERS.c.key == TURNS.c.user_key)
        .where(whose)
        .group_by(TURNS.c.source)
        .order_by(TURNS.c.source)
    )
    used = select(func.count(TURNS.c.user_key.distinct()), func.count(TURNS.c.session_key.distinct())).join_from(TURNS, USERS, USERS.c.key == TURNS.c.user_key)
    pages = (
        select(func.length(PAGES.c.slots), PAGES.c.slot_turns, PAGES.c.quarantine.is_not(None))
        .join_from(PAGES, SESSIONS, SESSIONS.c.key == PAGES.c.session_key)
        .join(USERS, USERS.c.key == SESSIONS.c.user_key)
        .where(whose)
        .execution_options(yield_per=_STREAM)
    )
    served = withheld = slots = page_bytes = 0
    with database.begin() as connection:
        try:
            rows = connection.execute(by_source).all()
            users, sessions = connection.execute(used.where(whose)).one()
            for size, slot_turns, quarantined in connection.execute(pages):
                served, withheld = served + (not quarantined), withheld + bool(quarantined)
                slots, page_bytes = slots + len(json.loads(slot_turns)), page_bytes + size
            times = [moment(at) for row in rows for at in row[3:]]
        except (TypeError, ValueError, OverflowError):
            raise DamagedRowError("a turn or a page cannot be counted") from None
        schema = schema_version(connection, database.place)
    return Stats(
        users=users,
        sessions=sessions,
        turns={source: count for source, count, *_ in rows},
        pages=served,
        quarantined=withheld,
        slots=slots,
        log_bytes=sum(int(row[2]) for row in rows),
        page_bytes=page_bytes,
        oldest=min(times, default=None),
        newest=max(times, default=None),
        schema=schema,
        encrypted=database.keyring.encrypts,
    )
