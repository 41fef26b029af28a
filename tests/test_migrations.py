"""Stores of every earlier schema open as they were; those of a later one are refused (see test_store_failures)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from store_kit import NOON, PRINTS, new, sql

from lpm_core.exceptions import StoreCorruptError
from lpm_core.migrations import MIGRATIONS
from lpm_core.store import MemoryStore

FIXTURES = Path(__file__).parent / "fixtures"
EARLIER = sorted(FIXTURES.glob("store_v*.sql"))


@pytest.fixture
def earlier(request: pytest.FixtureRequest, path: Path) -> Path:
    """A store file as an earlier version left it."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(request.param.read_text("utf-8"))
    return path


def test_there_is_a_fixture_of_every_earlier_schema() -> None:
    assert [file.name for file in EARLIER] == [f"store_v{number}.sql" for number in range(1, len(MIGRATIONS))]


@pytest.mark.parametrize("earlier", EARLIER, indirect=True, ids=lambda file: file.stem)
def test_an_earlier_store_opens_with_everything_in_it(earlier: Path, url: str) -> None:
    for _ in range(2):
        with MemoryStore(url) as store:
            turns = store.turns("ann")
            assert [(turn.session_id, turn.role, turn.content, turn.at) for turn in turns] == [
                ("s1", "user", "I live in Oslo. 🏔️", NOON),
                ("s1", "assistant", "Nice!", NOON),
                ("s2", "user", "My dog is Rex.\0", NOON + timedelta(days=1)),
            ]
            assert [turn.content for turn in store.turns("bob")] == ["12 °C"]
            assert [store.users(), store.version("ann"), store.version("cleo"), store.exists("cleo")] == [["ann", "bob"], 3, 2, False]
            assert [row.action for row in store.audit("ann")] == ["remember", "remember", "forget"]
            (page,) = store.pages("ann", **PRINTS)
            assert torch.equal(page.slots, torch.arange(8.0).reshape(2, 2, 2))
    with MemoryStore(url) as store:
        store.append_turns("ann", [new("after")])
        assert [turn.content for turn in store.turns("ann")][3:] == ["after"]


@pytest.mark.parametrize("earlier", EARLIER[:1], indirect=True)
def test_a_turn_that_was_damaged_before_the_upgrade_stays_refused(earlier: Path, url: str) -> None:
    sql(earlier, "UPDATE turns SET content = 'text' WHERE position = 1 AND user_key = (SELECT key FROM users WHERE last_position = 4)")
    with MemoryStore(url) as store:
        assert len(store.turns("bob")) == 1
        with pytest.raises(StoreCorruptError, match="a turn cannot be read"):
            store.turns("ann")
