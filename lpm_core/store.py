"""The store: turn log (the truth), pages (derived from it) and audit trail, in SQLite or PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar, get_args

import safetensors.torch
import torch
from sqlalchemy import URL, Connection, Engine, StaticPool, TableClause, column, create_engine, event, make_url, select, table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError

from lpm_core.exceptions import EngineClosedError, InvalidInputError, MissingDependencyError, StoreCorruptError, StoreError, StoreUnavailableError
from lpm_core.memory import Page, Role, Source, Turn
from lpm_core.migrations import MIGRATIONS, migrate, schema_version

__all__ = ["AuditRow", "MemoryStore", "NewTurn"]

_Id = TypeVar("_Id", int, str)
_log = logging.getLogger(__name__)

_BUSY_MS = 30_000
_BATCH = 500  # ids in one statement; databases limit the parameters of a statement
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TURN_ID: Final = re.compile(r"[0-9a-f]{32}")


def _table(name: str, *columns: str) -> TableClause:
    return table(name, *map(column, columns))


# Columns have no types here: values arrive as the driver read them, so that a damaged row fails its check and not the whole query.
_META = _table("meta", "key", "value")
_USERS = _table("users", "key", "digest", "name", "version", "last_position")
_SESSIONS = _table("sessions", "key", "user_key", "digest", "name")
_TURNS = _table("turns", "id", "user_key", "session_key", "position", "role", "source", "at", "content")
_PAGES = _table("pages", "key", "session_key", "page_index", "first_position", "slots", "slot_turns", "turn_ids", "tokens", "backbone", "weights", "checksum")
_AUDIT = _table("audit", "key", "user_key", "action", "at", "turn_ids")


@dataclass(frozen=True)
class NewTurn:
    """A turn on its way into the log. `at` carries a time zone and is kept in UTC, to the microsecond."""

    session_id: str
    role: Role
    content: str
    at: datetime
    source: Source


@dataclass(frozen=True)
class AuditRow:
    """What was done to a user's history, and when: "remember", "forget" or "forget_user". Never content."""

    action: str
    at: datetime
    turn_ids: tuple[str, ...]


class _User(NamedTuple):
    key: int
    version: int
    last_position: int
    named: bool


class MemoryStore:
    """Turn log, pages and audit trail of all users, by SQLAlchemy URL. Safe to share between threads.

    A call that writes is one transaction, durable when it returns. Errors: InvalidInputError for a URL, id or text that cannot
    be used; MissingDependencyError without the database's driver; StoreUnavailableError, StoreCorruptError and
    StoreVersionError for the database; EngineClosedError after `close()`.
    """

    id: str
    """Random, made with the database: tells one store from another."""

    def __init__(self, url: str) -> None:
        target = _parse(url)
        self._postgresql = target.get_backend_name() == "postgresql"
        self._in_memory = not self._postgresql and _is_in_memory(target)
        self._place, self._secrets = _describe(target)
        self._closed = False
        # One writer at a time in this process waits in line here instead of polling SQLite; in memory there is one connection for all.
        self._lock = threading.Lock()
        if not self._postgresql and not self._in_memory:
            self._make_folder(target)
        self._engine = self._connect(target)
        self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ") if self._postgresql else self._engine
        self._writer = self._engine.execution_options(lpm_write=True)
        try:
            self._open()
        except BaseException as error:
            self._engine.dispose()
            if isinstance(error, (TypeError, ValueError)) and not isinstance(error, InvalidInputError):
                raise InvalidInputError(f"The store URL for {self._place} has a part that its driver does not take ({type(error).__name__}).") from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Wait for a running write, then let the database go. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self._engine.dispose()

    # The turn log

    def append_turns(self, user_id: str, turns: Sequence[NewTurn]) -> list[Turn]:
        """Add turns to the end of a user's log, all or none; durable when it returns. No turns, no change."""
        name, digest = _key(user_id, "user_id")
        if not turns:
            return []
        rows = [_encode(turn) for turn in turns]
        stored = [
            Turn(uuid.uuid4().hex, user_id, turn.session_id, turn.role, turn.content, _moment(row["at"]), turn.source)
            for turn, row in zip(turns, rows, strict=True)
        ]
        with self._begin(write=True) as connection:
            user = _lock_user(connection, digest) or self._add_user(connection, digest)
            sessions = {session_id: _add_session(connection, user.key, session_id) for session_id in dict.fromkeys(turn.session_id for turn in turns)}
            connection.execute(
                _TURNS.insert(),
                [
                    row | {"id": turn.id, "user_key": user.key, "session_key": sessions[turn.session_id], "position": position}
                    for position, (turn, row) in enumerate(zip(stored, rows, strict=True), start=user.last_position + 1)
                ],
            )
            _changed(connection, user, "remember", [turn.id for turn in stored], name=name, last_position=user.last_position + len(stored))
        return stored

    def turns(self, user_id: str, *, session_id: str | None = None, turn_ids: Iterable[str] | None = None) -> list[Turn]:
        """A user's turns in the order they were added: all, of one session, or those named. Unknown ids are passed over."""
        query = (
            select(_TURNS.c.position, _TURNS.c.id, _SESSIONS.c.name, _TURNS.c.role, _TURNS.c.content, _TURNS.c.at, _TURNS.c.source)
            .join_from(_TURNS, _SESSIONS, _SESSIONS.c.key == _TURNS.c.session_key)
            .join(_USERS, _USERS.c.key == _TURNS.c.user_key)
            .where(_USERS.c.digest == _key(user_id, "user_id")[1])
            .order_by(_TURNS.c.position)
        )
        if session_id is not None:
            query = query.where(_SESSIONS.c.digest == _key(session_id, "session_id")[1])
        batches = [None] if turn_ids is None else _batches(_known_form(turn_ids))
        with self._begin() as connection:
            rows = [tuple(row) for ids in batches for row in connection.execute(query if ids is None else query.where(_TURNS.c.id.in_(ids)))]
        try:
            return [
                Turn(turn_id, user_id, _text(session), role, _text(content), _moment(at), source)
                for _, turn_id, session, role, content, at, source in sorted(rows, key=lambda row: row[0])
            ]
        except (TypeError, ValueError, OverflowError):
            raise self._corrupt("a turn cannot be read") from None

    def users(self) -> list[str]:
        """The users who have turns, in the order they were first seen."""
        query = select(_USERS.c.name).where(select(_TURNS.c.id).where(_TURNS.c.user_key == _USERS.c.key).exists()).order_by(_USERS.c.key)
        with self._begin() as connection:
            rows = connection.execute(query).scalars().all()
        try:
            return [_text(name) for name in rows]
        except (TypeError, ValueError):
            raise self._corrupt("a user id cannot be read") from None

    def version(self, user_id: str) -> int:
        """How many writes have changed a user's history; 0 for a user never seen. It never runs backwards, not even over `delete_user`.

        Read it before the turns that pages are made from: `replace_pages` then refuses pages of a history that has moved on.
        """
        with self._begin() as connection:
            found = connection.execute(select(_USERS.c.version).where(_USERS.c.digest == _key(user_id, "user_id")[1])).scalar()
        return int(found or 0)

    def delete_turns(self, user_id: str, turn_ids: Iterable[str]) -> int:
        """Delete turns and every page of their sessions; returns how many turns there were. Unknown ids are passed over."""
        _, digest = _key(user_id, "user_id")
        batches = _batches(_known_form(turn_ids))
        with self._begin(write=True) as connection:
            user = _lock_user(connection, digest)
            if user is None:
                return 0
            mine = _TURNS.c.user_key == user.key
            found = [tuple(row) for ids in batches for row in connection.execute(select(_TURNS.c.id, _TURNS.c.session_key).where(mine, _TURNS.c.id.in_(ids)))]
            if not found:
                return 0
            removed = [turn_id for turn_id, _ in found]
            for ids in _batches(removed):
                connection.execute(_TURNS.delete().where(mine, _TURNS.c.id.in_(ids)))
            for session in {session for _, session in found}:
                connection.execute(_PAGES.delete().where(_PAGES.c.session_key == session))
                emptied = ~select(_TURNS.c.id).where(_TURNS.c.session_key == session).exists()
                connection.execute(_SESSIONS.delete().where(_SESSIONS.c.key == session, emptied))
            _changed(connection, user, "forget", removed)
        return len(removed)

    def delete_user(self, user_id: str) -> int:
        """Delete a user's turns, pages and id; returns how many turns there were.

        What stays is the SHA-256 of the id, the version and the audit trail, so that a deletion can be shown to have happened.
        """
        _, digest = _key(user_id, "user_id")
        with self._begin(write=True) as connection:
            user = _lock_user(connection, digest)
            if user is None or not user.named:
                return 0
            removed = list(connection.execute(select(_TURNS.c.id).where(_TURNS.c.user_key == user.key).order_by(_TURNS.c.position)).scalars())
            sessions = select(_SESSIONS.c.key).where(_SESSIONS.c.user_key == user.key)
            connection.execute(_PAGES.delete().where(_PAGES.c.session_key.in_(sessions)))
            connection.execute(_TURNS.delete().where(_TURNS.c.user_key == user.key))
            connection.execute(_SESSIONS.delete().where(_SESSIONS.c.user_key == user.key))
            _changed(connection, user, "forget_user", removed, name=None)
        return len(removed)

    def audit(self, user_id: str) -> list[AuditRow]:
        """What was done to a user's history, oldest first; it outlives `delete_user`."""
        query = (
            select(_AUDIT.c.action, _AUDIT.c.at, _AUDIT.c.turn_ids)
            .join_from(_AUDIT, _USERS, _USERS.c.key == _AUDIT.c.user_key)
            .where(_USERS.c.digest == _key(user_id, "user_id")[1])
            .order_by(_AUDIT.c.key)
        )
        with self._begin() as connection:
            rows = connection.execute(query).all()
        try:
            return [AuditRow(action, _moment(at), tuple(json.loads(turn_ids))) for action, at, turn_ids in rows]
        except (TypeError, ValueError, OverflowError):
            raise self._corrupt("an audit row cannot be read") from None

    # Pages

    def pages(self, user_id: str, *, backbone: str, weights: str) -> list[Page]:
        """A user's pages made with these fingerprints, in the order of their turns; damaged ones are dropped, to be rebuilt."""
        _, digest = _key(user_id, "user_id")
        query = (
            select(_PAGES, _SESSIONS.c.name, _SESSIONS.c.digest)
            .join_from(_PAGES, _SESSIONS, _SESSIONS.c.key == _PAGES.c.session_key)
            .join(_USERS, _USERS.c.key == _SESSIONS.c.user_key)
            .where(_USERS.c.digest == digest, _PAGES.c.backbone == _plain(backbone, "backbone"), _PAGES.c.weights == _plain(weights, "weights"))
            .order_by(_PAGES.c.first_position, _PAGES.c.page_index)
        )
        with self._begin() as connection:
            rows = connection.execute(query).all()
        pages: list[Page] = []
        damaged: list[int] = []
        for key, _, index, position, slots, slot_turns, turn_ids, tokens, _, _, checksum, session, session_digest in rows:
            try:
                if checksum != _checksum(_raw(slots), digest, session_digest, index, position, slot_turns, turn_ids, tokens, backbone, weights):
                    raise ValueError("checksum")
                values = safetensors.torch.load(_raw(slots))["slots"]
                pages.append(Page(_text(session), index, values, tuple(json.loads(slot_turns)), tuple(json.loads(turn_ids)), tokens))
            except (TypeError, ValueError, KeyError, safetensors.SafetensorError):
                damaged.append(key)
        if damaged:
            _log.warning("dropped %d damaged page(s) out of %d in %s; they are rebuilt from the turn log", len(damaged), len(rows), self._place)
            with suppress(StoreUnavailableError), self._begin(write=True) as connection:
                for keys in _batches(damaged):
                    connection.execute(_PAGES.delete().where(_PAGES.c.key.in_(keys)))
        return pages

    def replace_pages(self, user_id: str, session_id: str, pages: Sequence[Page], *, from_index: int, backbone: str, weights: str, version: int) -> bool:
        """Put `pages` in place of a session's pages with index >= `from_index`, whatever their fingerprints.

        Returns False, with nothing written, if the user's history is no longer at `version`. Raises InvalidInputError for a page
        that is not of this session, or names turns that are not in it.
        """
        _, digest = _key(user_id, "user_id")
        _, session_digest = _key(session_id, "session_id")
        _check_pages(pages, session_id, from_index)
        prints = {"backbone": _plain(backbone, "backbone"), "weights": _plain(weights, "weights")}
        # The tensors are serialised before the transaction: no other writer waits for that.
        blobs = [safetensors.torch.save({"slots": page.slots.detach().to("cpu", torch.float32).contiguous()}) for page in pages]
        with self._begin(write=True) as connection:
            user = _lock_user(connection, digest)
            if (user.version if user else 0) != version:
                return False
            session = _session_key(connection, user.key, session_digest) if user else 0
            found = connection.execute(select(_TURNS.c.id, _TURNS.c.position).where(_TURNS.c.session_key == session))
            positions: dict[str, int] = dict(tuple(row) for row in found)
            rows = []
            for page, slots in zip(pages, blobs, strict=True):
                if not positions.keys() >= {*page.turn_ids, *page.slot_turns}:
                    raise InvalidInputError(f"Page {page.index} names turns that are not in its session. Make pages from turns(user_id, session_id=...).")
                position = min(positions[turn_id] for turn_id in page.turn_ids)
                slot_turns, turn_ids = json.dumps(page.slot_turns), json.dumps(page.turn_ids)
                checksum = _checksum(slots, digest, session_digest, page.index, position, slot_turns, turn_ids, page.tokens, backbone, weights)
                rows.append(
                    {"session_key": session, "page_index": page.index, "first_position": position, "slots": slots, "slot_turns": slot_turns}
                    | {"turn_ids": turn_ids, "tokens": page.tokens, "checksum": checksum}
                    | prints
                )
            connection.execute(_PAGES.delete().where(_PAGES.c.session_key == session, _PAGES.c.page_index >= from_index))
            if rows:
                connection.execute(_PAGES.insert(), rows)
        return True

    # The database

    def _make_folder(self, target: URL) -> None:
        path = target.database or ""
        if target.query.get("uri"):  # "file:..." is SQLite's own syntax; its folder is the caller's business
            return
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except ValueError:
            raise InvalidInputError(f"The store path {path!r} cannot be a path. Use a URL such as sqlite:///memory.db.") from None
        except OSError as error:
            raise StoreUnavailableError(f"The folder of the store {self._place} cannot be made: {error.strerror}. Choose another (LPM_STORE).") from None

    def _connect(self, target: URL) -> Engine:
        options: dict[str, Any] = {"hide_parameters": True}  # parameters hold content
        if self._postgresql:
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
            raise InvalidInputError(f"The store URL for {self._place} has a part that SQLAlchemy does not take.") from None
        if engine.dialect.is_async:
            raise InvalidInputError(f"{target.drivername} is an async driver. Use sqlite:///memory.db or postgresql+psycopg://user@host/database.")
        if not self._postgresql:
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _open(self) -> None:
        if not self._postgresql and not self._in_memory and _is_torn(self._place):
            raise self._corrupt("the file ends inside a page")
        with self._begin() as connection:
            ready = schema_version(connection, self._place) == len(MIGRATIONS)
        if not ready:
            with self._begin(write=True) as connection:
                migrate(connection, self._place)
        with self._begin() as connection:
            found = connection.execute(select(_META.c.value).where(_META.c.key == "store_id")).scalar()
        if not isinstance(found, str):
            raise self._corrupt("its id is missing")
        self.id = found

    @contextmanager
    def _begin(self, *, write: bool = False) -> Iterator[Connection]:
        """One transaction. What the database raises leaves as a StoreError; no parameter or password is in its message."""
        with self._lock if write or self._in_memory else nullcontext():
            if self._closed:
                raise EngineClosedError(f"The store {self._place} is closed. Open it again with MemoryStore(url).")
            try:
                with (self._writer if write else self._reader).begin() as connection:
                    yield connection
            except (SQLAlchemyError, sqlite3.Error) as error:
                raise self._failure(error) from None

    def _add_user(self, connection: Connection, digest: str) -> _User:
        insert = postgresql.insert if self._postgresql else sqlite.insert
        # Another process may be adding the same user: whoever is second waits here, and finds the row of the first.
        connection.execute(insert(_USERS).values(digest=digest, version=0, last_position=0).on_conflict_do_nothing(index_elements=["digest"]))
        user = _lock_user(connection, digest)
        if user is None:
            raise self._corrupt("a user row is missing")
        return user

    def _corrupt(self, what: str) -> StoreCorruptError:
        return StoreCorruptError(
            f"The store {self._place} is damaged, or is not a store of this package: {what}. It was left as it is: "
            "restore it from a backup, or move it away to start with an empty memory."
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
            return InvalidInputError(f"The store {self._place} cannot hold a value that large. Split it into several turns.")
        code = getattr(origin, "sqlite_errorcode", None) or 0
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR) or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            return self._corrupt(what)
        way_out = {
            sqlite3.SQLITE_BUSY: "Another process is writing to it: try again when that is done.",
            sqlite3.SQLITE_LOCKED: "Another process is writing to it: try again when that is done.",
            sqlite3.SQLITE_READONLY: "Give this process the right to write to the file and its folder, or choose another (LPM_STORE).",
            sqlite3.SQLITE_FULL: "Free some space; nothing of this call was written.",
            sqlite3.SQLITE_CANTOPEN: "Check that the path is a file this process may open (LPM_STORE).",
        }
        return StoreUnavailableError(f"The store {self._place} cannot be used: {what}. {way_out.get(code & 0xFF, 'Check the database and LPM_STORE.')}")


def _parse(url: str) -> URL:
    # A URL that cannot be parsed is not quoted: it may hold a password.
    way_out = "Use a SQLAlchemy URL such as sqlite:///memory.db or postgresql+psycopg://user@host/database (LPM_STORE)."
    try:
        target = make_url(_plain(url, "store URL"))
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


def _lock_user(connection: Connection, digest: str) -> _User | None:
    """The user's row, held against other writers until the transaction ends (SQLite holds the whole file)."""
    query = select(_USERS.c.key, _USERS.c.version, _USERS.c.last_position, _USERS.c.name.is_not(None)).where(_USERS.c.digest == digest).with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else _User(row[0], row[1], row[2], bool(row[3]))


def _session_key(connection: Connection, user_key: int, digest: str) -> int:
    """The key of a user's session, 0 if there is none."""
    found = connection.execute(select(_SESSIONS.c.key).where(_SESSIONS.c.user_key == user_key, _SESSIONS.c.digest == digest)).scalar()
    return int(found or 0)


def _add_session(connection: Connection, user_key: int, session_id: str) -> int:
    """The key of a user's session, which is made if there is none; the user's row is held."""
    name, digest = _key(session_id, "session_id")
    if not (key := _session_key(connection, user_key, digest)):
        connection.execute(_SESSIONS.insert().values(user_key=user_key, digest=digest, name=name))
        key = _session_key(connection, user_key, digest)
    return key


def _changed(connection: Connection, user: _User, action: str, turn_ids: Sequence[str], **values: object) -> None:
    """Bump the version and write the audit row of a change."""
    connection.execute(_USERS.update().where(_USERS.c.key == user.key).values(version=user.version + 1, **values))
    now = _microseconds(datetime.now(UTC))
    connection.execute(_AUDIT.insert().values(user_key=user.key, action=action, at=now, turn_ids=json.dumps(list(turn_ids))))


def _encode(turn: NewTurn) -> dict[str, Any]:
    for name, value, allowed in (("role", turn.role, get_args(Role)), ("source", turn.source, get_args(Source))):
        if value not in allowed:
            raise InvalidInputError(f"{name} {value!r:.80} is none of {', '.join(allowed)}.")
    _key(turn.session_id, "session_id")
    return {"role": turn.role, "source": turn.source, "content": _utf8(turn.content, "content"), "at": _microseconds(turn.at)}


def _check_pages(pages: Sequence[Page], session_id: str, from_index: int) -> None:
    indices = [page.index for page in pages]
    if len(set(indices)) != len(indices) or any(index < from_index for index in indices):
        raise InvalidInputError(f"Page indices {indices} are not distinct numbers from {from_index} on.")
    for page in pages:
        if page.session_id != session_id or not page.turn_ids:
            raise InvalidInputError(f"Page {page.index} is of another session, or names no turns.")
        if page.slots.dim() != 3 or page.slots.shape[1] != len(page.slot_turns):
            raise InvalidInputError(f"Page {page.index} has slots {list(page.slots.shape)} for {len(page.slot_turns)} slot turns; expected [H, S, d_mem].")


def _utf8(text: str, name: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} must be a str, not {type(text).__name__}.")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{name} has a lone surrogate at character {error.start}, which is no text. Decode its source again, or drop it.") from None


def _plain(text: str, name: str) -> str:
    """`text` itself, once it is known to be text."""
    _utf8(text, name)
    return text


def _key(text: str, name: str) -> tuple[bytes, str]:
    """An id as UTF-8 and as the digest it is found by."""
    data = _utf8(text, name)
    return data, hashlib.sha256(data).hexdigest()


def _known_form(turn_ids: Iterable[str]) -> list[str]:
    """The ids that could be turn ids, once each. The others cannot name a turn, and some databases cannot even be asked for them."""
    if isinstance(turn_ids, str):
        raise InvalidInputError("turn_ids must be several ids, not one str. Put it in a list.")
    return [turn_id for turn_id in dict.fromkeys(turn_ids) if isinstance(turn_id, str) and _TURN_ID.fullmatch(turn_id)]


def _batches(ids: Sequence[_Id]) -> list[Sequence[_Id]]:
    return [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]


def _microseconds(at: datetime) -> int:
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise InvalidInputError("at must be a datetime with a time zone, such as datetime.now(UTC).")
    try:
        microseconds = (at - _EPOCH) // _MICROSECOND
        _moment(microseconds)
    except OverflowError:
        raise InvalidInputError(f"at {at.isoformat()} is outside the years 1 to 9999 in UTC.") from None
    return microseconds


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _raw(value: object) -> bytes:
    """A column of bytes as the drivers give it."""
    if isinstance(value, (bytes, memoryview)):
        return bytes(value)
    raise TypeError(type(value).__name__)


def _text(value: object) -> str:
    return _raw(value).decode()


def _checksum(slots: bytes, *fields: object) -> str:
    """SHA-256 over a page and whose it is: a page in another user's session is as wrong as a flipped bit."""
    return hashlib.sha256(json.dumps(fields, default=repr).encode() + b"\0" + slots).hexdigest()
