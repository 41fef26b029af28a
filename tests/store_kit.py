"""What the tests of the store share: a few turns and pages, every call that takes a user, and SQL past the store's back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lpm_core.memory import Page, Turn
from lpm_core.store import NewTurn

NOON = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
PRINTS = {"backbone": "b" * 64, "weights": "w" * 64}
FINE = NewTurn("s1", "user", "fine", NOON, "user")
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [  # every method that takes a user, and its other arguments
    *(("append_turns", ([FINE],), {}), ("turns", (), {}), ("version", (), {}), ("audit", (), {}), ("delete_turns", ([],), {}), ("delete_user", (), {})),
    *(("pages", (), PRINTS), ("replace_pages", ("s1", []), {"from_index": 0, "version": 1} | PRINTS)),
]


def new(content: str, session: str = "s1", at: datetime = NOON) -> NewTurn:
    return NewTurn(session, "user", content, at, "user")


def page(turns: list[Turn], index: int = 0, seed: int = 0) -> Page:
    """A page over `turns` of one session, with one slot a turn."""
    ids = tuple(turn.id for turn in turns)
    slots = torch.randn(2, len(ids), 4, generator=torch.Generator().manual_seed(seed))  # [G, S, d_mem]
    return Page(turns[0].session_id, index, slots, ids, ids, 7 * len(ids))


def same(left: list[Page], right: list[Page]) -> bool:
    both = [[(p.session_id, p.index, p.slots.tolist(), p.slot_turns, p.turn_ids, p.tokens) for p in pages] for pages in (left, right)]
    return both[0] == both[1]


def sql(path: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema=ON")
        return connection.execute(statement, values).fetchall()
