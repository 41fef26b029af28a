"""What goes wrong with a database is a typed error, with a way out and without content."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_mock_engine
from sqlalchemy.dialects import postgresql
from store_kit import CALLS, PRINTS, new, page, same, sql

from lpm_core.exceptions import EngineClosedError, InvalidInputError, MissingDependencyError, StoreCorruptError, StoreUnavailableError, StoreVersionError
from lpm_core.migrations import MIGRATIONS
from lpm_core.store import MemoryStore

BAD_URLS = [
    *("memory.db", "", None, Path("memory.db"), "mysql://u:hunter2@h/d", "nonsense://u:hunter2@h/d", "sqlite+nonsense:///x.db", "sqlite:///a\x00b.db"),
    *("postgresql://u:hunter2@h:port/d", "postgresql+psycopg://u:hunter2@127.0.0.1:1/d", "sqlite:///\ud800.db", "sqlite:///x.db?timeout=hunter2"),
    "sqlite+aiosqlite:///x.db",
]


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
    for module in ("lpm_core.migrations", "lpm_core.storage.database"):
        monkeypatch.setattr(f"{module}.MIGRATIONS", [*MIGRATIONS, later])
    fails = True
    with pytest.raises(StoreCorruptError):
        MemoryStore(url)
    assert sql(path, "SELECT max(version) FROM schema_version") == [(len(MIGRATIONS),)]
    assert sql(path, "SELECT name FROM sqlite_schema WHERE name = 'later'") == []
    fails = False
    for _ in range(2):
        with MemoryStore(url) as store:
            assert len(store.turns("ann")) == 100
    assert sql(path, "SELECT version FROM schema_version ORDER BY version") == [(number + 1,) for number in range(len(MIGRATIONS) + 1)]


def test_a_locked_database_is_a_typed_error(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpm_core.storage.database._BUSY_MS", 50)
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
        with store.database.engine.connect() as connection:  # the pool hands this connection out again
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
    with MemoryStore(url) as store, store.database.engine.connect() as connection:
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
