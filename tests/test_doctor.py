"""Damage is found, never served, and put right where the rest of the store says how."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from store_kit import NOON, PRINTS, new, page, same, sql

from lpm_core import LPM, StoreCorruptError
from lpm_core.doctor import examine, repair
from lpm_core.exceptions import StoreError
from lpm_core.store import MemoryStore

TURN_DAMAGE = [
    *("content = x'68656c6c6f'", "content = 'text'", "role = 'system'", "source = 'import'", "at = at + 1", "position = 90", "checksum = NULL"),
    *("id = '" + "0" * 32 + "'", "session_key = (SELECT max(key) FROM sessions)", "user_key = (SELECT max(key) FROM users)"),
]
TURN = "id = (SELECT id FROM turns WHERE position = 2 AND user_key = 1)"


@pytest.fixture
def filled(path: Path, url: str) -> Path:
    with MemoryStore(url) as store:
        turns = store.append_turns("ann", [new("1"), new("2"), new("3", "s2")])
        store.replace_pages("ann", "s1", [page(turns[:2])], from_index=0, version=1, **PRINTS)
        store.replace_pages("ann", "s2", [page(turns[2:])], from_index=0, version=1, **PRINTS)
        store.append_turns("bob", [new("b")])
    return path


def found(url: str) -> list[tuple[str, str]]:
    with MemoryStore(url) as store:
        return [(finding.kind, finding.remedy) for finding in examine(store, **PRINTS).findings]


def test_a_sound_store_has_no_findings(filled: Path, url: str) -> None:
    with MemoryStore(url) as store:
        report = examine(store, **PRINTS)
    assert (report.users, report.turns, report.pages, report.findings, report.sound) == (2, 4, 2, (), True)


@pytest.mark.parametrize("damage", TURN_DAMAGE)
def test_a_damaged_turn_is_refused_found_and_can_be_dropped(filled: Path, url: str, damage: str) -> None:
    sql(filled, f"UPDATE turns SET {damage} WHERE {TURN}")
    with MemoryStore(url) as store:
        with pytest.raises(StoreCorruptError, match="doctor"):
            store.turns("ann")
        report = examine(store, **PRINTS)
        assert ("turn", "drop") in {(finding.kind, finding.remedy) for finding in report.findings}
        assert not repair(store, report).sound
        with pytest.raises(StoreCorruptError):
            store.turns("ann")

        repair(store, examine(store, **PRINTS), drop_damaged=True)

        assert [turn.content for turn in store.turns("ann")] == ["1", "3"]
        assert [turn.content for turn in store.turns("bob")] == ["b"]
        assert examine(store, **PRINTS).findings == ()


def test_a_lost_turn_is_missed(filled: Path, url: str) -> None:
    sql(filled, f"DELETE FROM turns WHERE {TURN}")
    with MemoryStore(url) as store, pytest.raises(StoreCorruptError, match="2 turns where 3"):
        store.turns("ann")
    assert ("user", "drop") in found(url)


@pytest.mark.parametrize(
    ("damage", "kind", "remedy"),
    [
        ("UPDATE pages SET tokens = tokens + 1 WHERE key = 1", "page", "rebuild"),
        ("UPDATE pages SET weights = 'old' WHERE key = 1", "page", "rebuild"),
        ("UPDATE pages SET session_key = 99 WHERE key = 1", "page", "rebuild"),
        ("INSERT INTO sessions VALUES (99, 1, 'digest', x'61')", "session", "rebuild"),
        ("UPDATE users SET name = x'78' WHERE key = 1", "user", "none"),
        ("UPDATE sessions SET digest = 'other' WHERE key = 1", "session", "none"),
    ],
)
def test_what_is_wrong_is_found_and_what_can_be_derived_is_repaired(filled: Path, url: str, damage: str, kind: str, remedy: str) -> None:
    sql(filled, damage)
    assert (kind, remedy) in found(url)

    with MemoryStore(url) as store:
        report = repair(store, examine(store, **PRINTS))
        assert report.sound == (remedy == "rebuild")
        assert examine(store, **PRINTS).sound == report.sound
        assert [turn.content for turn in store.turns("ann")] == ["1", "2", "3"]


def test_a_user_id_that_is_not_its_digest_is_not_listed(filled: Path, url: str) -> None:
    sql(filled, "UPDATE users SET name = x'78' WHERE key = 1")
    with MemoryStore(url) as store, pytest.raises(StoreCorruptError, match="user id"):
        store.users()


def test_the_engine_rebuilds_what_the_doctor_drops(tiny: LPM, path: Path, url: str) -> None:
    with tiny.on_store(url) as engine:
        engine.remember("ann", "I live in Oslo.")
        before = engine.recall("ann", "Where?").soft_prompt
    sql(path, "UPDATE pages SET slots = zeroblob(length(slots))")
    with tiny.on_store(url) as engine:
        assert [finding.kind for finding in engine.doctor().findings] == ["page"]
        assert engine.doctor(repair=True).sound
        assert engine.doctor().findings == ()
        assert sql(path, "SELECT count(*) FROM pages") == [(1,)]
        assert torch.equal(engine.recall("ann", "Where?").soft_prompt, before)


def test_a_flipped_bit_anywhere_in_the_file_is_never_served(filled: Path, url: str) -> None:
    """Either all is as it was, or the doctor or an error says that it is not; nothing else is ever returned."""
    with MemoryStore(url) as store:
        truth = (store.turns("ann"), store.turns("bob"), store.users())
        pages = store.pages("ann", **PRINTS)
        owed = [turn.content for turn in truth[0]]
    data = filled.read_bytes()
    draw = random.Random(0)
    detected = 0
    used = [place for place in range(len(data)) if data[place]]
    for place in draw.sample(used, 250):
        filled.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :])
        for extra in filled.parent.glob("memory.db-*"):
            extra.unlink()
        try:
            with MemoryStore(url) as store:
                findings = examine(store, **PRINTS).findings
                detected += bool(findings)
                try:
                    assert (store.turns("ann"), store.turns("bob"), store.users()) == truth or findings
                    assert {turn.content for turn in store.turns("ann")} <= set(owed)
                    assert all(any(same([one], [other]) for other in pages) for one in store.pages("ann", **PRINTS))
                except StoreError:
                    detected += not findings
        except StoreError:
            detected += 1
    assert detected > 50
    assert truth[0][0].at == NOON
