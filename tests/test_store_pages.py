"""Pages: whole sets in order, never of a history that moved on, never a damaged one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from store_kit import PRINTS, new, page, same, sql

from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Page
from lpm_core.store import MemoryStore

MISFITS: list[dict[str, Any]] = [
    *({"session_id": "s2"}, {"index": 0}, {"turn_ids": ()}, {"turn_ids": ("0" * 32,)}, {"slot_turns": ("0" * 32,)}, {"slots": torch.zeros(2, 3, 4)})
]
DAMAGE = [
    *("slots = zeroblob(length(slots))", "slots = 'text'", "slots = NULL", "slot_turns = slot_turns || ' '", "turn_ids = CAST(x'5b22ff225d' AS TEXT)"),
    *("tokens = tokens + 1", "page_index = 5", "first_position = 0", "checksum = CAST(x'ff' AS TEXT)"),
    "session_key = (SELECT s.key FROM sessions s JOIN users u ON u.key = s.user_key WHERE u.last_position = 1)",
]


def test_pages_come_back_in_the_order_of_their_turns(store: MemoryStore) -> None:
    one, two, three, four = store.append_turns("ann", [new("1", "late"), new("2", "early"), new("3", "late"), new("4", "early")])
    late, early = [page([one], 0, 1), page([one, three], 1, 2)], [page([two, four], 0, 3)]
    assert store.replace_pages("ann", "early", early, from_index=0, version=1, **PRINTS)
    assert store.replace_pages("ann", "late", late[::-1], from_index=0, version=1, **PRINTS)

    pages = store.pages("ann", **PRINTS)

    assert same(pages, late + early)
    assert all(p.slots.dtype == torch.float32 for p in pages)
    assert store.pages("ann", backbone=PRINTS["backbone"], weights="others") == []
    assert store.pages("ann", backbone="another", weights=PRINTS["weights"]) == []


def test_replacing_keeps_closed_pages_and_drops_the_rest(store: MemoryStore) -> None:
    one, two, three = store.append_turns("ann", [new("1"), new("2"), new("3")])
    store.replace_pages("ann", "s1", [page([one], 0, 1), page([two], 1, 2), page([three], 2, 3)], from_index=0, version=1, **PRINTS)

    assert store.replace_pages("ann", "s1", [page([two, three], 1, 4)], from_index=1, version=1, **PRINTS)
    assert same(store.pages("ann", **PRINTS), [page([one], 0, 1), page([two, three], 1, 4)])

    assert store.replace_pages("ann", "s1", [page([one], 0, 5)], from_index=0, backbone="new", weights="new", version=1)
    assert store.pages("ann", **PRINTS) == []
    assert same(store.pages("ann", backbone="new", weights="new"), [page([one], 0, 5)])


def test_pages_of_a_history_that_moved_on_are_refused(store: MemoryStore) -> None:
    turns = store.append_turns("ann", [new("1")])
    kept = [page(turns, seed=1)]
    assert store.replace_pages("ann", "s1", kept, from_index=0, version=store.version("ann"), **PRINTS)
    stale = store.version("ann")
    store.append_turns("ann", [new("2")])

    assert not store.replace_pages("ann", "s1", [page(turns, seed=2)], from_index=0, version=stale, **PRINTS)
    assert same(store.pages("ann", **PRINTS), kept)

    store.delete_user("ann")
    store.append_turns("ann", [new("3")])
    assert not store.replace_pages("ann", "s1", kept, from_index=0, version=stale, **PRINTS)
    assert store.pages("ann", **PRINTS) == []


def test_deleting_turns_deletes_every_page_of_their_user(store: MemoryStore) -> None:
    one, two, three, other = store.append_turns("ann", [new("1"), new("2"), new("3"), new("4", "s2")])
    store.replace_pages("ann", "s1", [page([one, two], 0), page([three], 1)], from_index=0, version=1, **PRINTS)
    store.replace_pages("ann", "s2", [page([other])], from_index=0, version=1, **PRINTS)
    store.replace_pages("bob", "s1", [page(store.append_turns("bob", [new("b")]))], from_index=0, version=1, **PRINTS)

    assert store.delete_turns("ann", [three.id, three.id]) == ((three.id,), 3, 0)
    assert store.turns("ann") == [one, two, other]
    assert store.pages("ann", **PRINTS) == []
    assert len(store.pages("bob", **PRINTS)) == 1


@pytest.mark.parametrize("change", MISFITS)
def test_pages_that_do_not_fit_are_refused(store: MemoryStore, change: dict[str, Any]) -> None:
    turns = store.append_turns("ann", [new("1")])
    good = page(turns, 1)
    with pytest.raises(InvalidInputError):
        store.replace_pages("ann", "s1", [page(turns, 2), Page(**(vars(good) | change))], from_index=1, version=1, **PRINTS)
    assert store.pages("ann", **PRINTS) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_page_is_dropped_and_never_served(path: Path, url: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    with MemoryStore(url) as store:
        one, two = store.append_turns("ann", [new("a secret"), new("2")])
        store.append_turns("bob", [new("b")])
        pages = [page([one], 0), page([two], 1)]
        store.replace_pages("ann", "s1", pages, from_index=0, version=1, **PRINTS)
    # The columns lose their NOT NULL, as damage would not ask for it either.
    sql(path, "UPDATE sqlite_schema SET sql = replace(sql, 'BLOB NOT NULL', 'BLOB') WHERE name = 'pages'")
    sql(path, f"UPDATE pages SET {damage} WHERE page_index = 1")

    with MemoryStore(url) as store, caplog.at_level(logging.WARNING, logger="lpm_core"):
        assert same(store.pages("ann", **PRINTS), pages[:1])
        assert store.pages("bob", **PRINTS) == []
        assert [word in caplog.text for word in ("damaged", "secret", "ann")] == [True, False, False]
        assert sql(path, "SELECT count(*) FROM pages") == [(1,)]
        assert store.replace_pages("ann", "s1", [page([two], 1)], from_index=1, version=1, **PRINTS)
        assert same(store.pages("ann", **PRINTS), pages)
