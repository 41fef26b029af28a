"""One SQL database: its URL, its connections, its transactions, and its errors as ours."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, StaticPool, TableClause, create_engine, event, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError

from lpm_core.exceptions import (
    EngineClosedError,
    InvalidInputError,
    MissingDependencyError,
    StoreCorruptError,
    StoreError,
    StoreKeyError,
    StoreUnavailableError,
)
from lpm_core.migrations import MIGRATIONS, migrate, schema_version
from lpm_core.storage.encryption import Keyring, MasterKey, SealingKeyring
from lpm_core.storage.tables import META, PAGES, SESSIONS, TURNS, USERS
from lpm_core.storage.values import DamagedRowError, plain

__all__ = ["ENCRYPTION", "Database"]

_log = logging.getLogger(__name__)

_BUSY_MS = 30_000
_DUE = "vacuum_due"
ENCRYPTION = "encryption"
"""The row of `meta` that keeps the index key of an encrypted store, wrapped; other stores have none."""


class Database:
    """The connections to one SQLite or PostgreSQL database. Safe to share between threads."""

    id: str
    """Random, made with the database: tells one store from another."""

    keyring: Keyring
    """How values lie in the columns."""

    def __init__(self, url: str, master_key: str | None = None) -> None:
        target = _parse(url)
        self._master = None if master_key is None else MasterKey(master_key)
        self._keys: tuple[str | None] | None = None  # the row of keys as it was when the store was opened
        self.is_postgresql = target.get_backend_name() == "postgresql"
        self._in_memory = not self.is_postgresql and _is_in_memory(target)
        self.place, self._secrets = _describe(target)
        self._closed = False
        # One writer at a time in this process waits in line here instead of polling SQLite; in memory there is one connection for all.
        self._lock = threading.Lock()
        if not self.is_postgresql and not self._in_memory:
            self._make_folder(target)
        self.engine = self._connect(target)
        self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ") if self.is_postgresql else self.engine
        self._writer = self.engine.execution_options(lpm_write=True)
        try:
            self._open()
        except BaseException as error:
            self.engine.dispose()
            if isinstance(error, (TypeError, ValueError)) and not isinstance(error, InvalidInputError):
                raise InvalidInputError(f"The store URL for {self.place} has a part that its driver does not take ({type(error).__name__}).") from None
            raise

    def close(self) -> None:
        """Wait for a running write, then let the database go. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self.engine.dispose()

    def _make_folder(self, target: URL) -> None:
        path = target.database or ""
        if target.query.get("uri"):  # "file:..." is SQLite's own syntax; its folder is the caller's business
            return
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except ValueError:
            raise InvalidInputError(f"The store path {path!r} cannot be a path. Use a URL such as sqlite:///memory.db.") from None
        except OSError as error:
            raise StoreUnavailableError(f"The folder of the store {self.place} cannot be made: {error.strerror}. Choose another (LPM_STORE).") from None

    def _connect(self, target: URL) -> Engine:
        options: dict[str, Any] = {"hide_parameters": True}  # parameters hold content
        if self.is_postgresql:
            options |= {"pool_pre_ping": True}
        elif self._in_memory:
            options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        try:
            engine = create_engine(target, **options)
        except NoSuchModuleError:
            raise InvalidInputError(f"The store URL names a driver that SQLAlchemy does not know: {target.drivername!r}.") from None
        except ImportError as error:
            raise MissingDependencyError(f"{target.drivername} needs the package {error.name!r}: pip install {error.name}") from None
        except (SQLAlchemyError, TypeError, ValueError):
            raise InvalidInputError(f"The store URL for {self.place} has a part that SQLAlchemy does not take.") from None
        if engine.dialect.is_async:
            raise InvalidInputError(f"{target.drivername} is an async driver. Use sqlite:///memory.db or postgresql+psycopg://user@host/database.")
        if not self.is_postgresql:
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _open(self) -> None:
        if not self.is_postgresql and not self._in_memory and _is_torn(self.place):
            raise self.corrupt("the file ends inside a page")
        with self.begin() as connection:
            ready = schema_version(connection, self.place) == len(MIGRATIONS)
        if not ready:
            with self.begin(write=True) as connection:
                if migrate(connection, self.place) == 0 and self._master is not None:
                    keys = SealingKeyring.new(self._master, self._read_id(connection)).dump()
                    connection.execute(META.insert().values(key=ENCRYPTION, value=keys))
        with self.begin() as connection:
            self.id = self._read_id(connection)
            found = _read_keys(connection)
        self.keyring = self._open_keys(found)
        self._keys = (found,)
        with suppress(StoreUnavailableError):  # a read-only store is still read
            self.vacuum()

    def _read_id(self, connection: Connection) -> str:
        found = connection.execute(select(META.c.value).where(META.c.key == "store_id")).scalar()
        if not isinstance(found, str):
            raise self.corrupt("its id is missing")
        return found

    def _open_keys(self, row: str | None) -> Keyring:
        if row is None and self._master is None:
            return Keyring()
        if row is None:
            raise StoreKeyError(f"The store {self.place} is not encrypted. Encrypt it with `lpm encrypt`, or unset LPM_MASTER_KEY.")
        if self._master is None:
            raise StoreKeyError(f"The store {self.place} is encrypted. Set LPM_MASTER_KEY to the key it was made with, or choose another store (LPM_STORE).")
        try:
            return SealingKeyring.load(self._master, self.id, row)
        except DamagedRowError:
            raise StoreKeyError(
                f"The store {self.place} cannot be opened with this LPM_MASTER_KEY: it is the key of another store, or was changed by `lpm rotate-key`. "
                "Set the right one; if it is, the store is damaged: restore a backup."
            ) from None

    def _check_keys(self, connection: Connection) -> None:
        # A process that opened the store before it was encrypted, or got another key, would miss users and write what nobody can read.
        if self._keys is not None and _read_keys(connection) != self._keys[0]:
            raise StoreKeyError(f"The keys of the store {self.place} were changed since it was opened. Open it again, with LPM_MASTER_KEY as it is now.")

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[Connection]:
        """One transaction. What the database raises leaves as a StoreError; no parameter or password is in its message."""
        with self._lock if write or self._in_memory else nullcontext():
            if self._closed:
                raise self._is_closed()
            try:
                with (self._writer if write else self._reader).begin() as connection:
                    self._check_keys(connection)
                    yield connection
            except DamagedRowError as error:
                raise self.corrupt(str(error)) from None
            except (SQLAlchemyError, sqlite3.Error) as error:
                raise self._failure(error) from None
            except UnicodeDecodeError:  # SQLite quotes a damaged schema in its messages, which the driver cannot decode
                raise self.corrupt("its schema is not text") from None

    def insert(self, table: TableClause) -> sqlite.Insert | postgresql.Insert:
        """An INSERT of this database's dialect, which can say what to do about a row that is there already."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    def lock_keys(self, connection: Connection) -> None:
        """Hold the row of keys, in a write transaction that is to change it, against all others: each of them reads it first."""
        if self.is_postgresql:
            connection.exec_driver_sql(f"LOCK TABLE {META.name} IN ACCESS EXCLUSIVE MODE")
            self._check_keys(connection)

    def owe_vacuum(self, connection: Connection) -> None:
        """Note, in the transaction that deletes, that deleted bytes may still lie in the files until `vacuum`."""
        value = uuid.uuid4().hex
        connection.execute(self.insert(META).values(key=_DUE, value=value).on_conflict_do_update(index_elements=["key"], set_={"value": value}))

    def vacuum(self) -> bool:
        """Rewrite the database without what was deleted, if that is due. False if others are in the way: it stays due.

        A store that is opened while it is due, after a crash for instance, makes up for it.
        """
        with self.begin() as connection:
            due = connection.execute(select(META.c.value).where(META.c.key == _DUE)).scalar()
        if due is None:
            return True
        try:
            with self._lock:
                if self._closed:
                    raise self._is_closed()
                done = self._vacuum_postgresql() if self.is_postgresql else self._vacuum_sqlite()
        except (SQLAlchemyError, sqlite3.Error) as error:
            failure = self._failure(error)
            if not isinstance(failure, StoreUnavailableError):
                raise failure from None
            _log.warning("deleted text may still be in the files: %s", failure)
            return False
        if done:
            with self.begin(write=True) as connection:  # unless more was deleted meanwhile
                connection.execute(META.delete().where(META.c.key == _DUE, META.c.value == due))
        return done

    def _vacuum_sqlite(self) -> bool:
        pooled = self.engine.raw_connection()
        try:
            cursor = pooled.cursor()
            cursor.execute("VACUUM")
            # The new pages are in the log until they are copied over the old ones; the log itself is emptied last.
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            row = cursor.fetchone()
            cursor.close()
        finally:
            pooled.close()
        return row is not None and row[0] == 0  # not busy

    def _vacuum_postgresql(self) -> bool:
        with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(f"SET lock_timeout = {_BUSY_MS}")
            try:
                for name in (PAGES.name, TURNS.name, SESSIONS.name, USERS.name, META.name):
                    connection.exec_driver_sql(f"VACUUM (FULL) {name}")
            finally:
                connection.exec_driver_sql("RESET lock_timeout")
        return True

    def _is_closed(self) -> EngineClosedError:
        return EngineClosedError(f"The store {self.place} is closed. Open it again with MemoryStore(url).")

    def corrupt(self, what: str) -> StoreCorruptError:
        """The error for a damaged database; `what` says where, without content."""
        return StoreCorruptError(
            f"The store {self.place} is damaged, or is not a store of this package: {what}. It was left as it is: "
            "see what `lpm doctor` says of it, restore it from a backup, or move it away to start with an empty memory."
        )

    def _failure(self, error: Exception) -> StoreError | InvalidInputError:
        origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        what = type(origin).__name__
        # Only these say what is wrong with the connection; the text of others may quote a row.
        if isinstance(error, (OperationalError, InterfaceError)) or isinstance(origin, sqlite3.Error):
            what = (str(origin).splitlines() or [what])[0]
            for secret in self._secrets:
                what = what.replace(secret, "***")
        if isinstance(error, DataError) or isinstance(origin, sqlite3.DataError):
            return InvalidInputError(f"The store {self.place} cannot hold a value that large. Split it into several turns.")
        code = getattr(origin, "sqlite_errorcode", None) or 0
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR) or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            return self.corrupt(what)
        way_out = {
            sqlite3.SQLITE_BUSY: "Another process is writing to it: try again when that is done.",
            sqlite3.SQLITE_LOCKED: "Another process is writing to it: try again when that is done.",
            sqlite3.SQLITE_READONLY: "Give this process the right to write to the file and its folder, or choose another (LPM_STORE).",
            sqlite3.SQLITE_FULL: "Free some space; nothing of this call was written.",
            sqlite3.SQLITE_CANTOPEN: "Check that the path is a file this process may open (LPM_STORE).",
        }
        return StoreUnavailableError(f"The store {self.place} cannot be used: {what}. {way_out.get(code & 0xFF, 'Check the database and LPM_STORE.')}")


_KEYS = select(META.c.value).where(META.c.key == ENCRYPTION)


def _read_keys(connection: Connection) -> str | None:
    found = connection.execute(_KEYS).scalar()
    return None if found is None else str(found)


def _parse(url: str) -> URL:
    # A URL that cannot be parsed is not quoted: it may hold a password.
    way_out = "Use a SQLAlchemy URL such as sqlite:///memory.db or postgresql+psycopg://user@host/database (LPM_STORE)."
    try:
        target = make_url(plain(url, "store URL"))
    except (ArgumentError, ValueError):
        raise InvalidInputError(f"The store URL cannot be understood. {way_out}") from None
    if target.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidInputError(f"The store cannot be kept in {target.get_backend_name()!r}. {way_out}")
    return target


def _is_in_memory(target: URL) -> bool:
    path = target.database or ":memory:"
    return path == ":memory:" or path.startswith("file::memory:") or target.query.get("mode") == "memory"


def _describe(target: URL) -> tuple[str, list[str]]:
    """The name of a database for messages, and what must never be in one."""
    secrets = [str(target.password)] if target.password else []
    secrets += [text for key, value in target.query.items() if "pass" in key.lower() for text in ([value] if isinstance(value, str) else value) if text]
    if target.get_backend_name() == "sqlite":
        return target.database or ":memory:", secrets
    return URL.create(target.get_backend_name(), host=target.host, port=target.port, database=target.database).render_as_string(), secrets


def _is_torn(path: str) -> bool:
    """Whether an SQLite file ends inside a page: SQLite finds whole pages missing by itself, but reads the rest of a torn one as zeros."""
    if Path(f"{path}-wal").exists():  # a crash may leave that, and SQLite completes the page from this log
        return False
    with suppress(OSError), open(path, "rb") as file:
        header = file.read(18)
        size = int.from_bytes(header[16:18])  # 1 stands for 65536
        return header.startswith(b"SQLite format 3\0") and size > 0 and file.seek(0, 2) % (65536 if size == 1 else size) != 0
    return False


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions by itself: _begin_sqlite does
    connection.text_factory = _lenient
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={_BUSY_MS}", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    # SQLite does not wait for the lock that the first switch to WAL needs, so processes that open a new file together would fail.
    deadline = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("lpm_write") else "BEGIN")


def _lenient(data: bytes) -> str:
    # A flipped byte in one row must not make the driver refuse all rows; the row's own check finds it.
    return data.decode("utf-8", "replace")
