"""What a store holds, counted: of one user by name, of all without one."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from store_kit import NOON, PRINTS, new, page, sql
from typer.testing import CliRunner

from lpm_core import MemoryStore, StoreCorruptError, UnknownUserError
from lpm_core.cli import app
from lpm_core.memory import Source
from lpm_core.migrations import MIGRATIONS
from lpm_core.stats import store_stats
from lpm_core.storage.encryption import new_master_key
from lpm_core.store import NewTurn


def fill(store: MemoryStore) -> None:
    said: list[tuple[str, Source]] = [("Zürich", "user"), ("Nice!", "assistant"), ("12 °C", "tool")]
    turns = store.append_turns("ann", [NewTurn("s1", "user", text, NOON + timedelta(days=day), source) for day, (text, source) in enumerate(said)])
    store.append_turns("bob", [new("Hello", "s1"), new("again", "s2", NOON - timedelta(days=9))])
    store.replace_pages("ann", "s1", [page(turns[:2], 0), page(turns[2:], 1)], from_index=0, version=1, **PRINTS)
    store.append_turns("cleo", [new("gone")])
    store.delete_user("cleo")


def test_the_figures_of_a_store_and_of_a_user(store: MemoryStore) -> None:
    fill(store)

    whole, ann, bob = store_stats(store), store_stats(store, "ann"), store_stats(store, "bob")

    assert (whole.users, whole.sessions, whole.turns) == (2, 3, {"assistant": 1, "tool": 1, "user": 3})
    assert (ann.users, ann.sessions, ann.turns, ann.pages, ann.slots, ann.quarantined) == (1, 1, {"assistant": 1, "tool": 1, "user": 1}, 2, 3, 0)
    assert (bob.users, bob.sessions, bob.turns, bob.pages, bob.page_bytes) == (1, 2, {"user": 2}, 0, 0)
    assert [figures.log_bytes for figures in (whole, ann, bob)] == [28, 18, 10]
    assert whole.page_bytes == ann.page_bytes > 3 * 2 * 2 * 4
    assert (whole.oldest, whole.newest) == (NOON - timedelta(days=9), NOON + timedelta(days=2))
    assert (ann.oldest, bob.newest) == (NOON, NOON)
    assert (whole.schema, whole.encrypted) == (len(MIGRATIONS), False)


def test_an_empty_store_has_no_times_and_an_unknown_user_is_named(store: MemoryStore) -> None:
    figures = store_stats(store)

    assert (figures.users, figures.turns, figures.pages, figures.oldest, figures.newest) == (0, {}, 0, None, None)
    with pytest.raises(UnknownUserError, match="cleo"):
        store_stats(store, "cleo")


def test_an_encrypted_store_is_counted_alike(url: str) -> None:
    with MemoryStore(url, new_master_key()) as sealed, MemoryStore("sqlite://") as plain:
        fill(sealed)
        fill(plain)
        one, other = store_stats(sealed, "ann"), store_stats(plain, "ann")
    assert one.encrypted
    assert (one.sessions, one.turns, one.pages, one.slots, one.oldest) == (other.sessions, other.turns, other.pages, other.slots, other.oldest)
    assert one.log_bytes > other.log_bytes


@pytest.mark.parametrize("damage", ["UPDATE turns SET at = 'noon'", "UPDATE pages SET slot_turns = 'x'", "UPDATE pages SET slot_turns = '7'"])
def test_damage_is_an_error_that_names_the_doctor(path: Path, url: str, damage: str) -> None:
    with MemoryStore(url) as store:
        fill(store)
    sql(path, damage)
    with MemoryStore(url) as store, pytest.raises(StoreCorruptError, match="doctor"):
        store_stats(store)


def test_the_command_names_nobody_unless_asked(url: str) -> None:
    with MemoryStore(url) as store:
        fill(store)
        store.append_turns("ann-who-is-unique", [new("said")])

    def run(*options: str) -> str:
        return CliRunner().invoke(app, ["stats", *options, "--store", url]).stdout

    figures = json.loads(run("--json"))
    assert (figures["users"], figures["turns"]["user"], figures["oldest"][:10]) == (3, 4, "2024-04-22")
    assert json.loads(run("ann", "--json"))["pages"] == 2
    assert [word in run() for word in ("page bytes", "days ago", "6, 1 of source assistant", "ann", "bob", "Zürich")] == [True, True, True, False, False, False]
    assert isinstance(CliRunner().invoke(app, ["stats", "dora", "--store", url]).exception, UnknownUserError)
