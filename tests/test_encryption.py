"""With a master key nothing personal is in the files in the clear, and what was not sealed for its place is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from store_kit import CALLS, NOON, PRINTS, new, page, sql
from typer.testing import CliRunner

import lpm_core.storage.rekey as rekey
from lpm_core import LPM, LPMSettings
from lpm_core.cli import app
from lpm_core.doctor import examine, repair
from lpm_core.exceptions import InvalidInputError, MissingDependencyError, StoreCorruptError, StoreKeyError, StoreVersionError
from lpm_core.storage.encryption import new_master_key
from lpm_core.storage.rekey import encrypt_store, rotate_key
from lpm_core.storage.values import checksum
from lpm_core.store import MemoryStore

KEY, OTHER = new_master_key(), new_master_key()
FIXTURES = Path(__file__).parent / "fixtures"
WORDS = [b"swordfish", b"secret-session", b"ann@example.org"]
ANN = WORDS[2].decode()


@pytest.fixture(params=["file", "memory", "postgresql"])
def sealed_url(request: pytest.FixtureRequest, url: str) -> str:
    """Where an encrypted store of each kind may be made."""
    return {"file": url, "memory": "sqlite://"}.get(request.param) or str(request.getfixturevalue("empty_postgresql"))


@pytest.fixture(params=["file", "postgresql"])
def kept_url(request: pytest.FixtureRequest, url: str) -> str:
    """The same, of those kinds that can be closed and opened again."""
    return url if request.param == "file" else str(request.getfixturevalue("empty_postgresql"))


def fill(store: MemoryStore) -> tuple[Any, ...]:
    """Two users with sessions of the same names, pages, and one who was forgotten; returns `everything`."""
    for user in (ANN, "bob"):
        turns = store.append_turns(user, [new(f"{user}: the swordfish is safe"), new("two", "secret-session"), new("three", "secret-session")])
        store.replace_pages(user, "secret-session", [page(turns[1:])], from_index=0, version=1, **PRINTS)
    store.append_turns("cleo", [new("gone")])
    store.delete_user("cleo")
    store.vacuum()
    return everything(store)


def everything(store: MemoryStore) -> tuple[Any, ...]:
    users = (ANN, "bob", "cleo")
    slots = [[(p.session_id, p.turn_ids, p.slots.tolist()) for p in store.pages(user, **PRINTS)] for user in users]
    return store.users(), [(store.turns(user), store.version(user), store.audit(user), store.exists(user)) for user in users], slots


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def clues(content: tuple[Any, ...]) -> list[bytes]:
    """What is in the files of a plain store, and must not be in others: texts, ids, slots, and what an id that is guessed gives without a key."""
    slots = torch.tensor(content[2][0][0][2]).numpy().tobytes()[:16]
    return [*WORDS, slots, b'"dtype":"F32"', *(hashlib.sha256(name).hexdigest().encode() for name in (*WORDS[1:], b"bob"))]


def open_plain(path: Path, number: int) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"store_v{number}.sql").read_text("utf-8"))


# A store under a key


def test_an_encrypted_store_keeps_what_a_plain_one_keeps(sealed_url: str) -> None:
    with MemoryStore(sealed_url, KEY) as store, MemoryStore("sqlite://") as plain:
        stored, (names, told, slots) = fill(store), fill(plain)
        assert stored[0] == names
        assert [[(t.session_id, t.content, t.at) for t in turns] for turns, *_ in stored[1]] == [
            [(t.session_id, t.content, t.at) for t in turns] for turns, *_ in told
        ]
        assert [page[2] for (page,) in stored[2][:2]] == [page[2] for (page,) in slots[:2]]
        assert store.delete_turns(ANN, session_id="secret-session").sessions == 1
        assert [turn.content for turn in store.turns(ANN, session_id="s1")] == [f"{ANN}: the swordfish is safe"]
        assert len(store.delete_user(ANN).turn_ids) == 1
        store.append_turns(ANN, [new("again", "secret-session")])
        assert [turn.content for turn in store.turns(ANN)] == ["again"]
        assert examine(store).sound


@pytest.mark.parametrize("text", ["", "\x00", "🏔️ ḱ\u0301", "x" * 300_000])
def test_any_text_round_trips(url: str, text: str) -> None:
    with MemoryStore(url, KEY) as store:
        stored = store.append_turns(text, [new(text, text)])
    with MemoryStore(url, KEY) as store:
        assert (store.users(), store.turns(text), store.turns(text, session_id=text)) == ([text], stored, stored)


def test_no_byte_of_it_is_in_the_files(path: Path, url: str) -> None:
    with MemoryStore(url) as store:
        content = fill(store)
        found = clues(content)
        assert [clue for clue in found if clue not in on_disk(path)] == []
    for file in path.parent.iterdir():
        file.unlink()
    with MemoryStore(url, KEY) as store:
        assert clues(fill(store))[:4] == found[:4]
        assert (path.parent / f"{path.name}-wal").stat().st_size > 0
        assert [clue for clue in found if clue in on_disk(path)] == []
    assert [clue for clue in found if clue in on_disk(path)] == []


def test_equal_values_do_not_look_equal(path: Path, url: str) -> None:
    with MemoryStore(url, KEY) as store:
        fill(store)
    for column, table in (("content", "turns"), ("name", "sessions"), ("digest", "sessions"), ("slots", "pages"), ("data_key", "users")):
        (counts,) = sql(path, f"SELECT count({column}), count(DISTINCT {column}) FROM {table}")
        assert counts[0] == counts[1] > 1, column


def test_the_key_comes_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPM_MASTER_KEY", KEY)
    with MemoryStore(url) as store:
        content = fill(store)
    monkeypatch.delenv("LPM_MASTER_KEY")
    with MemoryStore(url, KEY) as store:
        assert everything(store) == content
    assert KEY not in repr(LPMSettings(master_key=KEY))  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "way_out"), [(None, "Set LPM_MASTER_KEY"), (OTHER, "Set the right one"), ("abc", "new-key")])
def test_an_encrypted_store_opens_with_its_own_key_only(path: Path, url: str, key: str | None, way_out: str) -> None:
    with MemoryStore(url, KEY) as store:
        content = fill(store)
    data = path.read_bytes()
    with pytest.raises(StoreKeyError, match=way_out) as caught:
        MemoryStore(url, key)
    assert not any(str(secret) in str(caught.value) for secret in (KEY, OTHER, "abc"))
    assert path.read_bytes() == data
    with MemoryStore(url, KEY) as store:
        assert everything(store) == content


@pytest.mark.parametrize("key", ["", " ", KEY[:-4], KEY + "AAAA", "?" * 44, base64.b64encode(secrets.token_bytes(16)).decode(), "ключ" * 11])
def test_what_is_no_key_is_refused_before_anything_is_made(path: Path, url: str, key: str) -> None:
    with pytest.raises(StoreKeyError, match="32 bytes in base64") as caught:
        MemoryStore(url, key)
    assert not key.strip() or key not in str(caught.value)
    assert not path.parent.exists()


def test_a_plain_store_is_not_opened_with_a_key(url: str) -> None:
    with MemoryStore(url) as store:
        store.append_turns(ANN, [new("1")])
    with pytest.raises(StoreKeyError, match="lpm encrypt"):
        MemoryStore(url, KEY)


def test_keys_in_a_newer_format_are_refused(path: Path, url: str) -> None:
    MemoryStore(url, KEY).close()
    ((row,),) = sql(path, "SELECT value FROM meta WHERE key = 'encryption'")
    sql(path, "UPDATE meta SET value = ? WHERE key = 'encryption'", json.dumps(json.loads(row) | {"format": 2}))
    with pytest.raises(StoreVersionError, match="Upgrade"):
        MemoryStore(url, KEY)
    sql(path, "UPDATE meta SET value = 'x' WHERE key = 'encryption'")
    with pytest.raises(StoreKeyError, match="backup"):
        MemoryStore(url, KEY)


def test_without_the_package_the_extra_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cryptography.exceptions", "cryptography.hazmat.primitives.ciphers.aead"):
        monkeypatch.setitem(sys.modules, name, None)
    with MemoryStore(url) as store:
        store.append_turns(ANN, [new("plain")])
    with pytest.raises(MissingDependencyError, match=r"latent-personal-memory\[encryption\]"):
        MemoryStore("sqlite://", KEY)


# Rows that were tampered with. Checksums are put right again, as who wants to deceive would: it is the tag that must refuse.


@pytest.fixture
def filled(path: Path, url: str) -> Path:
    with MemoryStore(url, KEY) as store:
        fill(store)
    return path


def mend(path: Path) -> None:
    """Make all checksums fit."""
    users, sessions = dict(sql(path, "SELECT key, digest FROM users")), dict(sql(path, "SELECT key, digest FROM sessions"))
    for turn, user, session, content, *rest in sql(path, "SELECT id, user_key, session_key, content, position, role, source, at FROM turns"):
        sql(path, "UPDATE turns SET checksum = ? WHERE id = ?", checksum(content, users[user], sessions[session], turn, *rest), turn)
    owners = dict(sql(path, "SELECT key, user_key FROM sessions"))
    fields = "page_index, first_position, slot_turns, turn_ids, tokens, backbone, weights"
    for key, session, slots, *rest in sql(path, f"SELECT key, session_key, slots, {fields} FROM pages"):
        sql(path, "UPDATE pages SET checksum = ? WHERE key = ?", checksum(slots, users[owners[session]], sessions[session], *rest), key)


def test_mending_checksums_changes_nothing_that_is_sound(filled: Path) -> None:
    before = sql(filled, "SELECT checksum FROM turns UNION SELECT checksum FROM pages")
    mend(filled)
    assert sql(filled, "SELECT checksum FROM turns UNION SELECT checksum FROM pages") == before


MINE = "user_key = 1 AND position = 2"
TURN_DAMAGE = [
    f"UPDATE turns SET content = (SELECT content FROM turns WHERE user_key = 1 AND position = 3) WHERE {MINE}",
    f"UPDATE turns SET content = (SELECT content FROM turns WHERE user_key = 2 AND position = 2) WHERE {MINE}",
    f"UPDATE turns SET content = substr(content, 1, length(content) - 1) WHERE {MINE}",
    f"UPDATE turns SET content = substr(content, 1, 10) WHERE {MINE}",
    f"UPDATE turns SET content = x'' WHERE {MINE}",
    f"UPDATE turns SET content = x'68656c6c6f' WHERE {MINE}",
    f"UPDATE turns SET role = 'assistant' WHERE {MINE}",
    f"UPDATE turns SET at = at + 1 WHERE {MINE}",
    f"UPDATE turns SET position = 9 WHERE {MINE}",
    f"UPDATE turns SET id = '{'0' * 32}' WHERE {MINE}",
    f"UPDATE turns SET session_key = (SELECT min(key) FROM sessions) WHERE {MINE}",
    "UPDATE turns SET user_key = 3 - user_key, session_key = CASE session_key WHEN 1 THEN 3 WHEN 2 THEN 4 WHEN 3 THEN 1 ELSE 2 END, position = position + 10",
    "UPDATE sessions SET name = (SELECT name FROM sessions AS other WHERE other.user_key = 2 AND other.key = sessions.key + 2) WHERE user_key = 1",
    "UPDATE sessions SET name = x'7331' WHERE key = 2",
    "UPDATE sessions SET digest = 'x' || digest",
    "UPDATE users SET data_key = (SELECT data_key FROM users WHERE key = 2) WHERE key = 1",
    "UPDATE users SET data_key = NULL WHERE key = 1",
    "UPDATE users SET data_key = x'00' WHERE key = 1",
]


@pytest.mark.parametrize("damage", TURN_DAMAGE)
def test_a_turn_that_was_not_sealed_for_its_place_is_refused(filled: Path, url: str, damage: str) -> None:
    sql(filled, damage)
    mend(filled)
    with MemoryStore(url, KEY) as store:
        with pytest.raises(StoreCorruptError, match="doctor") as caught:
            store.turns(ANN)
        assert not any(word.decode() in str(caught.value) for word in WORDS)
        assert not examine(store).sound


def test_a_user_whose_key_is_lost_writes_nothing_under_another(filled: Path, url: str) -> None:
    sql(filled, "UPDATE users SET data_key = NULL WHERE key = 1")
    with MemoryStore(url, KEY) as store:
        with pytest.raises(StoreCorruptError):
            store.append_turns(ANN, [new("4")])
        with pytest.raises(StoreCorruptError, match="user id"):
            store.users()
        assert len(store.turns("bob")) == len(store.delete_user(ANN).turn_ids) == 3
        store.append_turns(ANN, [new("from the start")])
        assert store.users() == [ANN, "bob"]


@pytest.mark.parametrize("name", ["(SELECT name FROM users WHERE key = 2)", "x'626f62'", "'bob'"])
def test_a_user_id_of_another_row_or_in_the_clear_is_refused(filled: Path, url: str, name: str) -> None:
    sql(filled, f"UPDATE users SET name = {name} WHERE key = 1")
    with MemoryStore(url, KEY) as store:
        with pytest.raises(StoreCorruptError, match="user id"):
            store.users()
        assert [(finding.kind, finding.remedy) for finding in examine(store).findings] == [("user", "none")]


@pytest.mark.parametrize("damage", ["slots = (SELECT slots FROM pages WHERE key = 2)", "tokens = 1", "slots = substr(slots, 1, 40)", "turn_ids = '[]'"])
def test_a_page_that_was_not_sealed_for_its_place_is_dropped(filled: Path, url: str, damage: str) -> None:
    sql(filled, f"UPDATE pages SET {damage} WHERE key = 1")
    mend(filled)
    with MemoryStore(url, KEY) as store:
        assert [finding.kind for finding in examine(store, **PRINTS).findings] == ["page"]
        assert store.pages(ANN, **PRINTS) == []
        assert sql(filled, "SELECT key FROM pages") == [(2,)]
        assert len(store.turns(ANN)) == 3


def test_a_page_in_the_clear_is_dropped(filled: Path, url: str) -> None:
    import safetensors.torch

    sql(filled, "UPDATE pages SET slots = ? WHERE key = 1", safetensors.torch.save({"slots": torch.zeros(2, 2, 4)}))
    mend(filled)
    with MemoryStore(url, KEY) as store:
        assert [store.pages(ANN, **PRINTS), len(store.pages("bob", **PRINTS))] == [[], 1]


def test_a_row_of_another_store_under_the_same_key_is_refused(filled: Path, url: str, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with MemoryStore(f"sqlite:///{other}", KEY) as store:
        fill(store)
    rows = sql(filled, "SELECT digest, name, data_key FROM users WHERE key = 1")
    sql(other, "UPDATE users SET digest = ?, name = ?, data_key = ? WHERE key = 1", *rows[0])
    with MemoryStore(f"sqlite:///{other}", KEY) as store, pytest.raises(StoreCorruptError):
        store.users()
    sql(other, "UPDATE meta SET value = ? WHERE key = 'encryption'", *sql(filled, "SELECT value FROM meta WHERE key = 'encryption'")[0])
    with pytest.raises(StoreKeyError):
        MemoryStore(f"sqlite:///{other}", KEY)


def test_the_doctor_repairs_an_encrypted_store(filled: Path, url: str) -> None:
    with MemoryStore(url, KEY) as store:
        assert examine(store, **PRINTS) == type(examine(store))(3, 6, 2, ())
    sql(filled, f"UPDATE turns SET content = x'68656c6c6f' WHERE {MINE}")
    sql(filled, "UPDATE pages SET tokens = 1 WHERE key = 2")
    with MemoryStore(url, KEY) as store:
        report = examine(store, **PRINTS)
        assert [finding.kind for finding in report.findings] == ["turn", "page"]
        repair(store, report, drop_damaged=True)
        assert examine(store, **PRINTS).findings == ()
        assert [turn.content for turn in store.turns(ANN)][1:] == ["three"]


def test_a_store_whose_row_of_keys_was_taken_away_is_not_read_as_plain(filled: Path, url: str) -> None:
    sql(filled, "DELETE FROM meta WHERE key = 'encryption'")
    with pytest.raises(StoreKeyError):
        MemoryStore(url, KEY)
    with MemoryStore(url) as store, pytest.raises(StoreCorruptError):
        store.users()
    with pytest.raises(StoreCorruptError):
        encrypt_store(url, KEY)


# Forgetting


def test_forgetting_a_user_destroys_the_key(filled: Path, url: str) -> None:
    saved = {table: sql(filled, f"SELECT * FROM {table} WHERE user_key = 1") for table in ("sessions", "turns")}
    ((wrapped,),) = sql(filled, "SELECT data_key FROM users WHERE key = 1")
    with MemoryStore(url, KEY) as store:
        store.delete_user(ANN)
        assert store.vacuum()
        assert sql(filled, "SELECT name, data_key FROM users WHERE key = 1") == [(None, None)]
        assert wrapped not in on_disk(filled)
        for again in (False, True):  # rows from a backup are of no use, whether the user is back under a new key or not
            if again:
                store.append_turns(ANN, [new("again", "new session")])
            for table, rows in saved.items():
                for row in rows:
                    sql(filled, f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)
            for row in saved["turns"]:
                with pytest.raises(StoreCorruptError, match="a turn cannot be read"):
                    store.turns(ANN, turn_ids=[row[0]])
            for table in reversed(saved):
                sql(filled, f"DELETE FROM {table} WHERE user_key = 1 AND {'key' if table == 'sessions' else 'session_key'} < 3")
        assert [turn.content for turn in store.turns(ANN)] == ["again"]
        assert [row.action for row in store.audit(ANN)] == ["remember", "forget_user", "remember"]


# Encrypting in place


def test_a_plain_store_is_encrypted_in_place(kept_url: str, path: Path) -> None:
    with MemoryStore(kept_url) as store:
        content = fill(store)
    steps: list[tuple[int, int]] = []

    done = encrypt_store(kept_url, KEY, lambda count, total: steps.append((count, total)))

    assert (done, steps) == ((3, True), [(3, 6), (6, 6)])
    if path.exists():
        assert [clue for clue in clues(content) if clue in on_disk(path)] == []
    with pytest.raises(StoreKeyError):
        MemoryStore(kept_url)
    with MemoryStore(kept_url, KEY) as store:
        assert everything(store) == content
        assert examine(store, **PRINTS).sound
        store.append_turns(ANN, [new("four", "secret-session")])
        assert len(store.turns(ANN, session_id="secret-session")) == 3
    assert encrypt_store(kept_url, KEY) == (0, True)
    with pytest.raises(StoreKeyError, match="cannot be opened with this LPM_MASTER_KEY"):
        encrypt_store(kept_url, OTHER)


@pytest.mark.parametrize("number", [1, 2])
def test_an_earlier_store_is_encrypted_in_place(path: Path, url: str, number: int) -> None:
    open_plain(path, number)
    with pytest.raises(StoreKeyError, match="lpm encrypt"):
        MemoryStore(url, KEY)
    assert encrypt_store(url, KEY) == (3, True)
    assert [word for word in (b"Oslo", b"Rex", b"ann") if word in on_disk(path)] == []
    with MemoryStore(url, KEY) as store:
        assert [turn.content for turn in store.turns("ann")] == ["I live in Oslo. 🏔️", "Nice!", "My dog is Rex.\0"]
        assert [store.users(), store.version("cleo"), store.exists("cleo"), len(store.audit("cleo"))] == [["ann", "bob"], 2, False, 2]
        assert torch.equal(store.pages("ann", **PRINTS)[0].slots, torch.arange(8.0).reshape(2, 2, 2))


def test_more_turns_than_a_portion(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekey, "_PORTION", 7)
    with MemoryStore(url) as store:
        turns = store.append_turns(ANN, [new(str(number)) for number in range(30)])
    encrypt_store(url, KEY)
    with MemoryStore(url, KEY) as store:
        assert store.turns(ANN) == turns


def test_interrupted_encryption_leaves_the_store_as_it_was(path: Path, url: str) -> None:
    def interrupt(_count: int, _total: int) -> None:
        raise KeyboardInterrupt

    with MemoryStore(url) as store:
        content = fill(store)
    with pytest.raises(KeyboardInterrupt):
        encrypt_store(url, KEY, interrupt)
    with MemoryStore(url) as store:
        assert everything(store) == content
    assert encrypt_store(url, KEY).users == 3


def test_a_damaged_store_is_not_encrypted_but_a_damaged_page_is_no_hindrance(path: Path, url: str) -> None:
    with MemoryStore(url) as store:
        fill(store)
    sql(path, "UPDATE pages SET tokens = 1 WHERE key = 1")
    sql(path, f"UPDATE turns SET role = 'system' WHERE {MINE}")
    with pytest.raises(StoreCorruptError, match="doctor"):
        encrypt_store(url, KEY)
    sql(path, f"UPDATE turns SET role = 'user' WHERE {MINE}")
    sql(path, "INSERT INTO sessions VALUES (99, 99, 'digest', x'61')")
    with pytest.raises(StoreCorruptError, match="of no user"):
        encrypt_store(url, KEY)
    sql(path, "DELETE FROM sessions WHERE key = 99")
    assert encrypt_store(url, KEY).users == 3
    with MemoryStore(url, KEY) as store:
        assert [len(store.pages(user, **PRINTS)) for user in (ANN, "bob")] == [0, 1]


# Rotation


def test_rotation_changes_the_key_and_nothing_else(kept_url: str) -> None:
    with MemoryStore(kept_url, KEY) as store:
        content = fill(store)

    assert rotate_key(kept_url, KEY, OTHER) == (2, True)

    with pytest.raises(StoreKeyError, match="rotate-key"):
        MemoryStore(kept_url, KEY)
    with MemoryStore(kept_url, OTHER) as store:
        assert everything(store) == content
        store.append_turns("dora", [new("new")])
    assert rotate_key(kept_url, KEY, OTHER) == (0, True)
    with pytest.raises(StoreKeyError):
        rotate_key(kept_url, KEY, new_master_key())
    with pytest.raises(StoreKeyError, match="LPM_NEW_MASTER_KEY"):
        rotate_key(kept_url, OTHER, "no key")


def test_a_rotation_that_fails_changes_nothing(filled: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_self: object, _connection: object) -> None:
        raise KeyboardInterrupt

    with MemoryStore(url, KEY) as store:
        content = everything(store)
    with monkeypatch.context() as patch:
        patch.setattr("lpm_core.storage.database.Database.owe_vacuum", crash)
        with pytest.raises(KeyboardInterrupt):
            rotate_key(url, KEY, OTHER)
    with MemoryStore(url, KEY) as store:
        assert everything(store) == content
    sql(filled, "UPDATE users SET data_key = x'00' WHERE key = 2")
    with pytest.raises(StoreCorruptError):
        rotate_key(url, KEY, OTHER)
    with MemoryStore(url, KEY) as store:
        assert store.turns(ANN) == content[1][0][0]


def test_rotation_of_a_plain_store_names_the_way_out(url: str) -> None:
    MemoryStore(url).close()
    with pytest.raises(StoreKeyError, match="lpm encrypt"):
        rotate_key(url, KEY, OTHER)


@pytest.mark.parametrize("before", [KEY, None], ids=["rotated", "encrypted"])
def test_a_store_that_was_open_when_its_keys_changed_answers_no_call(kept_url: str, before: str | None) -> None:
    with MemoryStore(kept_url, before) as stale:
        stale.append_turns("ann", [new("1")])
        encrypt_store(kept_url, KEY) if before is None else rotate_key(kept_url, before, OTHER)
        for method, arguments, named in [*CALLS, ("exists", (), {})]:
            with pytest.raises(StoreKeyError, match="Open it again"):
                getattr(stale, method)("ann", *arguments, **named)
        with pytest.raises(StoreKeyError):
            stale.users()


# The engine and the command


@pytest.fixture
def answering(embedded: LPM, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LPM]:
    monkeypatch.setenv("LPM_MASTER_KEY", KEY)
    with embedded.on_store(url) as engine:
        yield engine


def test_the_engine_answers_from_an_encrypted_store_and_logs_no_content(
    answering: LPM, path: Path, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answering.remember(ANN, "I live in Lisbon.", session_id="secret-session", at=NOON)
    answering.remember(ANN, "My dog is called Rex.", session_id="secret-session", at=NOON)
    with answering.on_store(url) as again:
        answer = again.ask(ANN, "Where do I live?")
        assert (answer.text, answer.evidence[0].turn.content) == ("Lisbon", "I live in Lisbon.")
        sql(path, "UPDATE pages SET slots = zeroblob(length(slots))")
    with answering.on_store(url) as again:  # a damaged page is written again from the log
        assert again.ask(ANN, "Where do I live?").text == "Lisbon"
        assert "damaged" in caplog.text
        again.export(ANN, tmp_path / "ann.lpm")
        again.forget_user(ANN)
        assert again.restore(tmp_path / "ann.lpm").turns == 2
        assert again.ask(ANN, "What is my dog called?").text == "Rex"
        assert again.doctor().sound
    assert [word for word in (b"Lisbon", b"Rex", b"secret-session", ANN.encode()) if word in on_disk(path)] == []
    sql(path, "UPDATE turns SET content = x'4c6973626f6e'")
    with answering.on_store(url) as again, pytest.raises(StoreCorruptError) as caught:
        again.ask(ANN, "Where do I live?")
    told = caplog.text + str(caught.value)
    assert [word for word in ("Lisbon", "Rex", "Where do", ANN, "secret-session", KEY) if word in told] == []


def test_the_commands(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        assert not any(key in result.output + str(result.exception) for key in (keys if arguments != ("new-key",) else []))
        return result

    keys: list[str] = []
    keys += [run("new-key").stdout.strip(), run("new-key").stdout.strip()]
    assert [len(set(keys)), *(len(base64.b64decode(key)) for key in keys)] == [2, 32, 32]
    with MemoryStore(url) as store:
        content = fill(store)
    for command in ("encrypt", "rotate-key"):
        assert isinstance(run(command, "--store", url).exception, InvalidInputError)

    monkeypatch.setenv("LPM_MASTER_KEY", keys[0])
    assert isinstance(run("turns", ANN, "--store", url).exception, StoreKeyError)
    assert "encrypted the data of 3 users" in run("encrypt", "--store", url).stdout
    assert "nothing was left to encrypt" in run("encrypt", "--store", url).stdout
    assert "swordfish" in run("turns", ANN, "--store", url).stdout
    monkeypatch.setenv("LPM_NEW_MASTER_KEY", keys[1])
    assert "changed the keys of 2 users" in run("rotate-key", "--store", url).stdout
    assert "nothing was left to change" in run("rotate-key", "--store", url).stdout
    assert isinstance(run("users", "--store", url).exception, StoreKeyError)
    monkeypatch.setenv("LPM_MASTER_KEY", keys[1])
    assert run("users", "--store", url).stdout.split() == content[0]
    monkeypatch.setenv("LPM_MASTER_KEY", "not a key")
    assert isinstance(run("users", "--store", url).exception, StoreKeyError)
