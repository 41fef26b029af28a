"""What the store promises: nothing acknowledged is lost, nothing damaged is served, no user sees another."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_mock_engine
from sqlalchemy.dialects import postgresql

import lpm_core.store as store_module
from lpm_core.exceptions import EngineClosedError, InvalidInputError, MissingDependencyError, StoreCorruptError, StoreUnavailableError, StoreVersionError
from lpm_core.memory import Page, Turn
from lpm_core.migrations import MIGRATIONS
from lpm_core.store import MemoryStore, NewTurn

NOON = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
ODD_TEXT = ["\x00", "a\x00b\x00", "", "🏔️ ḱ\u0301", "\u202eRTL", "<|im_end|>", "../../etc", "x" * 1_000_000, "'; DROP TABLE turns; --", "\U0010ffff\r\x1b"]
MISFITS: list[dict[str, Any]] = [
    *({"session_id": "s2"}, {"index": 0}, {"turn_ids": ()}, {"turn_ids": ("0" * 32,)}, {"slot_turns": ("0" * 32,)}, {"slots": torch.zeros(2, 3, 4)})
]
DAMAGE = [
    *("slots = zeroblob(length(slots))", "slots = 'text'", "slots = NULL", "slot_turns = slot_turns || ' '", "turn_ids = CAST(x'5b22ff225d' AS TEXT)"),
    *("tokens = tokens + 1", "page_index = 5", "first_position = 0", "checksum = CAST(x'ff' AS TEXT)"),
    "session_key = (SELECT s.key FROM sessions s JOIN users u ON u.key = s.user_key WHERE u.last_position = 1)",
]
BAD_URLS = [
    *("memory.db", "", None, Path("memory.db"), "mysql://u:hunter2@h/d", "nonsense://u:hunter2@h/d", "sqlite+nonsense:///x.db", "sqlite:///a\x00b.db"),
    *("postgresql://u:hunter2@h:port/d", "postgresql+psycopg://u:hunter2@127.0.0.1:1/d", "sqlite:///\ud800.db", "sqlite:///x.db?timeout=hunter2"),
    "sqlite+aiosqlite:///x.db",
]
BAD_TURNS: list[tuple[Any, ...]] = [
    *(("s", "robot", "x", NOON, "user"), ("s", "user", "x", NOON, "\x00"), ("s", "user", "x", NOON.replace(tzinfo=None), "user")),
    *(("s", "user", "x", "yesterday", "user"), ("s", "user", "x", datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "user")),
]
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
    slots = torch.randn(2, len(ids), 4, generator=torch.Generator().manual_seed(seed))  # [H, S, d_mem]
    return Page(turns[0].session_id, index, slots, ids, ids, 7 * len(ids))


def same(left: list[Page], right: list[Page]) -> bool:
    both = [[(p.session_id, p.index, p.slots.tolist(), p.slot_turns, p.turn_ids, p.tokens) for p in pages] for pages in (left, right)]
    return both[0] == both[1]


def sql(path: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema=ON")
        return connection.execute(statement, values).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "memory.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path.as_posix()}"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, url: str) -> Iterator[MemoryStore]:
    with MemoryStore(url if request.param == "file" else "sqlite://") as store:
        yield store


# The turn log


def test_turns_come_back_as_they_were_stored_and_in_order(store: MemoryStore) -> None:
    first = store.append_turns("ann", [new("one"), NewTurn("s2", "assistant", "two", NOON - timedelta(days=9), "assistant")])
    second = store.append_turns("ann", [NewTurn("s1", "tool", "", NOON.astimezone(timezone(timedelta(hours=5))), "import")])

    turns = store.turns("ann")

    assert turns == first + second
    assert [(t.session_id, t.role, t.content, t.source) for t in turns] == [
        *(("s1", "user", "one", "user"), ("s2", "assistant", "two", "assistant"), ("s1", "tool", "", "import"))
    ]
    assert [(t.at, t.at.tzinfo) for t in turns] == [(NOON, UTC), (NOON - timedelta(days=9), UTC), (NOON, UTC)]
    assert [len({t.id for t in turns}), {len(t.id) for t in turns}, {t.user_id for t in turns}] == [3, {32}, {"ann"}]


def test_turns_of_a_session_or_by_id(store: MemoryStore) -> None:
    one, two, three = store.append_turns("ann", [new("one"), new("two", "s2"), new("three")])

    assert [store.turns("ann", session_id="s1"), store.turns("ann", session_id="none")] == [[one, three], []]
    assert store.turns("ann", turn_ids=[three.id, "no such id", "\x00", "9" * 100_000, one.id, one.id]) == [one, three]
    assert store.turns("ann", session_id="s2", turn_ids=[one.id, two.id]) == [two]
    assert store.turns("ann", turn_ids=[]) == []
    with pytest.raises(InvalidInputError, match="list"):
        store.turns("ann", turn_ids=one.id)


def test_more_ids_than_a_statement_takes(store: MemoryStore) -> None:
    ids = [turn.id for turn in store.append_turns("ann", [new(str(number)) for number in range(1201)])]

    assert [turn.content for turn in store.turns("ann", turn_ids=reversed(ids))] == [str(number) for number in range(1201)]
    assert store.delete_turns("ann", ids[:1200] + ["f" * 32] * 40_000) == 1200
    assert [turn.content for turn in store.turns("ann")] == ["1200"]


def test_versions_count_the_writes_that_change_history(store: MemoryStore) -> None:
    versions = [store.version("ann")]
    turns = store.append_turns("ann", [new("one"), new("two")])
    versions.append(store.version("ann"))
    store.append_turns("ann", [])
    store.replace_pages("ann", "s1", [page(turns)], from_index=0, version=1, **PRINTS)
    store.delete_turns("ann", ["0" * 32])
    versions.append(store.version("ann"))
    store.delete_turns("ann", [turns[0].id])
    versions.append(store.version("ann"))
    store.delete_user("ann")
    versions.append(store.version("ann"))
    store.append_turns("ann", [new("again")])
    assert [*versions, store.version("ann")] == [0, 1, 1, 2, 3, 4]


def test_audit_names_turns_and_never_content(store: MemoryStore) -> None:
    before = datetime.now(UTC)
    one, two = store.append_turns("ann", [new("a secret"), new("another secret")])
    store.delete_turns("ann", [one.id])
    store.delete_user("ann")

    rows = store.audit("ann")

    assert [(row.action, row.turn_ids) for row in rows] == [("remember", (one.id, two.id)), ("forget", (one.id,)), ("forget_user", (two.id,))]
    assert before <= rows[0].at <= rows[1].at <= rows[2].at <= datetime.now(UTC)
    assert "secret" not in repr(rows)


def test_users_are_isolated(store: MemoryStore) -> None:
    ann = store.append_turns("ann", [new("ann's")])
    bob = store.append_turns("bob", [new("bob's")])
    assert store.replace_pages("ann", "s1", [page(ann)], from_index=0, version=1, **PRINTS)

    assert store.users() == ["ann", "bob"]
    assert [store.turns("ann"), store.turns("bob")] == [ann, bob]
    assert store.turns("bob", turn_ids=[ann[0].id]) == []
    assert store.pages("bob", **PRINTS) == []
    assert store.delete_turns("bob", [ann[0].id]) == 0
    with pytest.raises(InvalidInputError, match="not in its session"):
        store.replace_pages("bob", "s1", [page(ann)], from_index=0, version=1, **PRINTS)
    assert store.delete_user("bob") == 1
    assert store.turns("ann") == ann
    assert same(store.pages("ann", **PRINTS), [page(ann)])
    assert store.users() == ["ann"]


def test_a_user_never_seen_has_nothing(store: MemoryStore) -> None:
    assert [store.turns("x"), store.users(), store.audit("x"), store.pages("x", **PRINTS)] == [[], [], [], []]
    assert store.delete_turns("x", ["0" * 32]) == 0
    assert store.delete_user("x") == 0
    assert store.version("x") == 0
    assert store.replace_pages("x", "s1", [], from_index=0, version=0, **PRINTS)
    assert [store.users(), store.audit("x")] == [[], []]


@pytest.mark.parametrize("text", ODD_TEXT)
def test_any_text_round_trips_as_content_and_as_id(store: MemoryStore, text: str) -> None:
    other = store.append_turns(text + "\x00", [new("of another user", text + "x")])
    stored = store.append_turns(text, [new(text, text)])

    assert store.turns(text) == stored == store.turns(text, session_id=text)
    assert [(t.user_id, t.session_id, t.content) for t in stored] == [(text, text, text)]
    assert store.users() == [text + "\x00", text]
    assert store.replace_pages(text, text, [page(stored)], from_index=0, version=1, **PRINTS)
    assert same(store.pages(text, **PRINTS), [page(stored)])
    assert store.delete_user(text) == 1
    assert store.turns(text + "\x00") == other


@pytest.mark.parametrize("bad", ["\ud800", "ok\udfff", None, 3, b"bytes"])
def test_what_is_not_text_is_refused_and_nothing_written(store: MemoryStore, bad: Any) -> None:
    kept = store.append_turns("ann", [new("kept")])
    for turn in (new(bad), new("fine", session=bad)):
        with pytest.raises(InvalidInputError):
            store.append_turns("ann", [FINE, turn])
    for method, arguments, named in CALLS:
        with pytest.raises(InvalidInputError):
            getattr(store, method)(bad, *arguments, **named)
    with pytest.raises(InvalidInputError):
        store.pages("ann", backbone=bad, weights="w")
    assert [store.turns("ann"), store.users(), store.version("ann")] == [kept, ["ann"], 1]


@pytest.mark.parametrize("fields", BAD_TURNS)
def test_turns_that_cannot_be_kept_are_refused(store: MemoryStore, fields: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInputError):
        store.append_turns("ann", [FINE, NewTurn(*fields)])
    assert store.turns("ann") == []


ACTIONS = st.sampled_from(["append", "append", "delete", "delete_user", "reopen"])
VALUES = st.lists(st.tuples(st.integers(0, 9), st.text(max_size=30)), max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(ACTIONS, st.sampled_from(["ann", "bob", ""]), VALUES), max_size=12))
def test_the_log_is_what_a_plain_list_would_be(steps: list[tuple[str, str, list[tuple[int, str]]]]) -> None:
    model: dict[str, list[Turn]] = {"ann": [], "bob": [], "": []}
    versions = dict.fromkeys(model, 0)
    with tempfile.TemporaryDirectory() as folder:
        store = MemoryStore(f"sqlite:///{Path(folder).as_posix()}/memory.db")
        for action, user, values in steps:
            before = len(model[user])
            if action == "append":
                model[user] += store.append_turns(user, [new(content, f"s{number % 3}") for number, content in values])
            elif action == "delete":
                ids = [model[user][index].id for index in {number for number, _ in values} if index < before]
                assert store.delete_turns(user, ids) == len(ids)
                model[user] = [turn for turn in model[user] if turn.id not in ids]
            elif action == "delete_user":
                assert store.delete_user(user) == before
                model[user] = []
            else:
                store.close()
                store = MemoryStore(f"sqlite:///{Path(folder).as_posix()}/memory.db")
            for name, turns in model.items():
                assert store.turns(name) == turns
                assert store.version(name) >= versions[name] + (name == user and len(turns) != before)
                versions[name] = store.version(name)
            assert sorted(store.users()) == sorted(name for name, turns in model.items() if turns)
        store.close()


# Pages


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


def test_deleting_turns_deletes_every_page_of_their_sessions(store: MemoryStore) -> None:
    one, two, three, other = store.append_turns("ann", [new("1"), new("2"), new("3"), new("4", "s2")])
    store.replace_pages("ann", "s1", [page([one, two], 0), page([three], 1)], from_index=0, version=1, **PRINTS)
    store.replace_pages("ann", "s2", [page([other])], from_index=0, version=1, **PRINTS)

    assert store.delete_turns("ann", [three.id, three.id]) == 1
    assert store.turns("ann") == [one, two, other]
    assert same(store.pages("ann", **PRINTS), [page([other])])


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


# Durability and concurrency


def test_a_reopened_store_has_everything(url: str) -> None:
    with MemoryStore(url) as store:
        turns = store.append_turns("ann", [new("1"), new("2", "s2")])
        store.replace_pages("ann", "s1", [page(turns[:1])], from_index=0, version=1, **PRINTS)
        before = (store.id, turns, store.users(), store.version("ann"), store.audit("ann"))
    with MemoryStore(url) as store:
        assert (store.id, store.turns("ann"), store.users(), store.version("ann"), store.audit("ann")) == before
        assert same(store.pages("ann", **PRINTS), [page(turns[:1])])
        with MemoryStore("sqlite://") as other, MemoryStore("sqlite://") as another:
            assert len({store.id, other.id, another.id}) == 3


def test_threads_append_to_one_user_without_loss(store: MemoryStore) -> None:
    def append(thread: int) -> list[str]:
        return [store.append_turns("ann", [new(f"{thread} {number}")])[0].id for number in range(50)]

    with ThreadPoolExecutor(4) as pool:
        acknowledged = [turn_id for ids in pool.map(append, range(4)) for turn_id in ids]

    turns = store.turns("ann")
    assert len(acknowledged) == 200
    assert sorted(turn.id for turn in turns) == sorted(acknowledged)
    assert store.version("ann") == len(store.audit("ann")) == 200
    for thread in range(4):
        mine = [turn.content for turn in turns if turn.content.startswith(f"{thread} ")]
        assert mine == [f"{thread} {number}" for number in range(50)]


def test_stores_opened_at_once_on_a_new_file_share_it(url: str) -> None:
    start = threading.Barrier(4)

    def append(number: int) -> str:
        start.wait()
        with MemoryStore(url) as store:
            for count in range(5):
                store.append_turns("ann", [new(f"{number} {count}")])
            return store.id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(append, range(4)))) == 1
    with MemoryStore(url) as store:
        assert len({turn.content for turn in store.turns("ann")}) == store.version("ann") == 20


def test_readers_see_whole_page_sets(url: str) -> None:
    with MemoryStore(url) as store:
        turns = store.append_turns("ann", [new(str(number)) for number in range(6)])
        sets = [[page([turn], index, seed) for index, turn in enumerate(turns)] for seed in range(2)]
        store.replace_pages("ann", "s1", sets[0], from_index=0, version=1, **PRINTS)
        done = threading.Event()

        def read() -> int:
            reads = 0
            while not done.is_set() or not reads:
                pages = store.pages("ann", **PRINTS)
                assert same(pages, sets[0]) or same(pages, sets[1])
                reads += 1
            return reads

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            for number in range(30):
                store.replace_pages("ann", "s1", sets[number % 2], from_index=0, version=1, **PRINTS)
            done.set()
            assert all(reader.result() for reader in readers)


CHILD = """
import os, sys
from datetime import UTC, datetime
from lpm_core.store import MemoryStore, NewTurn
store = MemoryStore(sys.argv[1])
while True:
    turn, = store.append_turns("ann", [NewTurn("s1", "user", "x" * 5000, datetime.now(UTC), "user")])
    os.write(1, (turn.id + "\\n").encode())
"""


def test_kill_9_after_append_loses_nothing(url: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(store_module.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(20)]
        child.kill()
        acknowledged += child.stdout.read().split()

    with MemoryStore(url) as store:
        turns = store.turns("ann")
        assert [turn.id for turn in turns][: len(acknowledged)] == acknowledged
        assert store.version("ann") == len(store.audit("ann")) == len(turns) <= len(acknowledged) + 1
        assert store.append_turns("ann", [new("after")])[0] == store.turns("ann")[-1]


def test_deleted_text_and_ids_are_gone_from_the_file(path: Path, url: str) -> None:
    with MemoryStore(url) as store:
        store.append_turns("ann-of-oslo", [new("swordfish" * 3000, "the-session")])
        store.append_turns("bob", [new("kept-by-bob")])
        store.delete_user("ann-of-oslo")
    data = path.read_bytes()
    assert b"kept-by-bob" in data
    assert not any(text in data for text in (b"swordfish", b"ann-of-oslo", b"the-session"))
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]


# What goes wrong


def filled(url: str) -> None:
    with MemoryStore(url) as store:
        store.append_turns("ann", [new("x" * 2000) for _ in range(100)])


@pytest.mark.parametrize("keep", [50, 100, 1000, 4096, 0.3, 0.5, 0.9, -1, b"not a database, but some text\n" * 50, b"\x00" * 8192, bytes(range(256)) * 40])
def test_a_file_truncated_or_of_something_else_is_refused_and_left_alone(path: Path, url: str, keep: float | bytes) -> None:
    filled(url)
    data = path.read_bytes()
    left = keep if isinstance(keep, bytes) else data[: int(len(data) * keep) if 0 < keep < 1 else int(keep)]
    path.write_bytes(left)

    with pytest.raises(StoreCorruptError, match=rf"{path.name}.*backup"):
        MemoryStore(url)

    assert path.read_bytes() == left


def test_damage_inside_the_file_is_a_typed_error_without_content(path: Path, url: str) -> None:
    filled(url)
    sql(path, "UPDATE turns SET content = x'736563726574ff'")
    with MemoryStore(url) as store, pytest.raises(StoreCorruptError, match="a turn cannot be read") as caught:
        store.turns("ann")
    assert "secret" not in str(caught.value)

    data = path.read_bytes()
    path.write_bytes(data[: 4096 * 5] + b"\xa5" * (len(data) - 4096 * 5))
    with pytest.raises(StoreCorruptError, match=path.name), MemoryStore(url) as store:
        store.turns("ann")


def test_a_database_of_another_program_is_refused(path: Path, url: str) -> None:
    path.parent.mkdir()
    sql(path, "CREATE TABLE users (login TEXT)")
    with pytest.raises(StoreCorruptError, match="not a store of this package"):
        MemoryStore(url)
    assert sql(path, "SELECT name FROM sqlite_schema") == [("users",)]


def test_a_newer_schema_is_refused_and_left_alone(path: Path, url: str) -> None:
    filled(url)
    sql(path, "INSERT INTO schema_version VALUES (?, 0)", len(MIGRATIONS) + 1)
    data = path.read_bytes()
    with pytest.raises(StoreVersionError, match="Upgrade"):
        MemoryStore(url)
    assert path.read_bytes() == data


def test_a_later_migration_is_applied_once_or_leaves_no_trace(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(connection: Any) -> None:
        connection.exec_driver_sql("CREATE TABLE later (x)")
        if fails:
            connection.exec_driver_sql("SELECT * FROM nowhere")

    filled(url)
    for module in ("lpm_core.migrations", "lpm_core.store"):
        monkeypatch.setattr(f"{module}.MIGRATIONS", [*MIGRATIONS, later])
    fails = True
    with pytest.raises(StoreCorruptError):
        MemoryStore(url)
    assert sql(path, "SELECT version FROM schema_version") == [(1,)]
    assert sql(path, "SELECT name FROM sqlite_schema WHERE name = 'later'") == []
    fails = False
    for _ in range(2):
        with MemoryStore(url) as store:
            assert len(store.turns("ann")) == 100
    assert sql(path, "SELECT version FROM schema_version ORDER BY version") == [(1,), (2,)]


def test_a_locked_database_is_a_typed_error(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_BUSY_MS", 50)
    with MemoryStore(url) as store:
        kept = store.append_turns("ann", [new("kept")])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"locked.*try again"):
            store.append_turns("ann", [new("secret")])
        assert store.turns("ann") == kept
        other.execute("ROLLBACK")
        other.close()
        store.append_turns("ann", [new("now")])


def test_a_full_disk_is_a_typed_error_and_keeps_the_log(path: Path, url: str) -> None:
    filled(url)
    with MemoryStore(url) as store:
        kept = store.turns("ann")
        with store._engine.connect() as connection:  # the pool hands this connection out again
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreUnavailableError, match=r"full.*Free some space"):
            store.append_turns("ann", [new("y" * 100_000)])
        assert store.turns("ann") == kept
        assert store.version("ann") == 1


def test_a_read_only_database_is_a_typed_error_and_serves_what_is_sound(path: Path, url: str) -> None:
    with MemoryStore(url) as store:
        turns = store.append_turns("ann", [new("1"), new("2")])
        store.replace_pages("ann", "s1", [page(turns[:1], 0), page(turns[1:], 1)], from_index=0, version=1, **PRINTS)
    sql(path, "UPDATE pages SET tokens = 1 WHERE page_index = 1")
    with MemoryStore(f"sqlite:///file:{path.as_posix()}?mode=ro&uri=true") as store:
        assert store.turns("ann") == turns
        assert same(store.pages("ann", **PRINTS), [page(turns[:1], 0)])
        with pytest.raises(StoreUnavailableError, match="readonly"):
            store.append_turns("ann", [new("x")])


def test_a_path_that_cannot_be_opened_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for url in (f"sqlite:///{tmp_path}", f"sqlite:///{tmp_path}/file/memory.db"):
        with pytest.raises(StoreUnavailableError, match=str(tmp_path)):
            MemoryStore(url)


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_cannot_be_used_is_refused(url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InvalidInputError, MissingDependencyError, StoreUnavailableError)) as caught:
        MemoryStore(url)
    assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_store_answers_no_call(store: MemoryStore) -> None:
    store.append_turns("ann", [new("1")])
    store.close()
    store.close()
    with pytest.raises(EngineClosedError):
        store.users()
    for method, arguments, named in CALLS:
        with pytest.raises(EngineClosedError):
            getattr(store, method)("ann", *arguments, **named)


def test_sqlite_is_set_to_lose_nothing(url: str) -> None:
    with MemoryStore(url) as store, store._engine.connect() as connection:
        for name, value in {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "busy_timeout": 30_000}.items():
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value, name


def test_the_schema_is_sql_that_postgresql_knows() -> None:
    statements: list[str] = []
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    engine = create_mock_engine("postgresql+psycopg://", lambda statement, *_: statements.append(str(statement.compile(dialect=dialect))))
    MIGRATIONS[0](engine)  # type: ignore[arg-type]
    text = "\n".join(statements)
    assert text.count("CREATE TABLE") == 6
    assert [word in text for word in ("BYTEA", "BIGSERIAL", "BLOB")] == [True, True, False]
