"""The client's catalogue: which memory is which turn or document, whose it is, its metadata and its history. SQLite by SQLAlchemy."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, Text, create_engine, delete, insert, or_, select, update
from sqlalchemy.exc import DatabaseError, OperationalError

from lpm_core.exceptions import EngineClosedError, StoreCorruptError, StoreUnavailableError, StoreVersionError

__all__ = ["ENTITIES", "Catalogue", "Event", "Record"]

ENTITIES: Final = ("user_id", "agent_id", "run_id")
"""What a memory can belong to."""

_SCHEMA = 1
_BATCH = 500  # parameters of one statement
_TABLES = MetaData()
_MEMORIES = Table(
    "memories",
    _TABLES,
    Column("position", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("ref", Text, nullable=False),
    Column("owner", Text, nullable=False, index=True),
    *(Column(name, Text, index=True) for name in ENTITIES),
    Column("role", String(16), nullable=False),
    Column("actor_id", Text),
    Column("session", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("said_at", String(40), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("updated_at", String(40)),
    sqlite_autoincrement=True,
)
_EVENTS = Table(
    "events",
    _TABLES,
    Column("key", Integer, primary_key=True, autoincrement=True),
    Column("memory_id", String(36), nullable=False, index=True),
    Column("event", String(8), nullable=False),
    Column("old_memory", Text),
    Column("new_memory", Text),
    Column("at", String(40), nullable=False),
)


@dataclass(frozen=True)
class Record:
    """One memory without its text. `ref` is its id in the backend; `owner` the backend's user; times are ISO 8601 in UTC."""

    id: str
    ref: str
    owner: str
    user_id: str | None
    agent_id: str | None
    run_id: str | None
    role: str
    actor_id: str | None
    session: str
    said_at: str
    created_at: str
    updated_at: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One row of the audit trail: ADD, UPDATE or DELETE. The texts go when the memory is deleted; the row stays."""

    memory_id: str
    event: str
    old_memory: str | None
    new_memory: str | None
    at: str


class Catalogue:
    """Records and events in one SQLite file. Each call that writes is one transaction.

    Raises StoreUnavailableError, StoreCorruptError or StoreVersionError where the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"cannot make the folder of {path} ({error.strerror}): name a folder that can be written") from error
        self._engine = create_engine(f"sqlite:///{path.as_posix()}", hide_parameters=True)
        try:
            with self._begin() as connection:
                version = connection.exec_driver_sql("PRAGMA user_version").scalar() or 0
                if version > _SCHEMA:
                    raise StoreVersionError(
                        f"{path} was written by a newer version of this package (schema {version}; this one knows {_SCHEMA}). Upgrade, or name another folder."
                    )
                _TABLES.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {_SCHEMA}")
        except BaseException:
            self._engine.dispose()
            raise

    def add(self, records: Sequence[Record], texts: Sequence[str]) -> None:
        """Enter new memories, each with its ADD event."""
        with self._begin() as connection:
            connection.execute(insert(_MEMORIES), [_row(record) for record in records])
            rows = [asdict(Event(record.id, "ADD", None, text, record.created_at)) for record, text in zip(records, texts, strict=True)]
            connection.execute(insert(_EVENTS), rows)

    def change(self, record: Record, old: str, new: str) -> None:
        """Put a record in place of the one with its id, with an UPDATE event."""
        with self._begin() as connection:
            connection.execute(update(_MEMORIES).where(_MEMORIES.c.id == record.id).values(**_row(record)))
            connection.execute(insert(_EVENTS), [asdict(Event(record.id, "UPDATE", old, new, record.updated_at or record.created_at))])

    def remove(self, records: Sequence[Record], at: str) -> None:
        """Take memories out: their texts leave the audit trail too, and a DELETE event says when."""
        with self._begin() as connection:
            for start in range(0, len(records), _BATCH):
                ids = [record.id for record in records[start : start + _BATCH]]
                connection.execute(delete(_MEMORIES).where(_MEMORIES.c.id.in_(ids)))
                connection.execute(update(_EVENTS).where(_EVENTS.c.memory_id.in_(ids)).values(old_memory=None, new_memory=None))
                connection.execute(insert(_EVENTS), [asdict(Event(memory_id, "DELETE", None, None, at)) for memory_id in ids])

    def get(self, memory_id: str) -> Record | None:
        """The record of a memory; None if there is none."""
        with self._begin() as connection:
            row = connection.execute(select(_MEMORIES).where(_MEMORIES.c.id == memory_id)).mappings().first()
        return None if row is None else self._record(row)

    def find(self, scope: Collection[tuple[str, str]]) -> list[Record]:
        """Records that belong to any of these (entity, id) pairs, in the order they were added."""
        return self._select(select(_MEMORIES).where(or_(*(_MEMORIES.c[entity] == name for entity, name in scope))))

    def all(self) -> list[Record]:
        """Every record, in the order they were added."""
        return self._select(select(_MEMORIES))

    def events(self, memory_id: str) -> list[Event]:
        """What happened to a memory, oldest first; it outlives the memory."""
        with self._begin() as connection:
            rows = connection.execute(select(_EVENTS).where(_EVENTS.c.memory_id == memory_id).order_by(_EVENTS.c.key)).mappings().all()
        return [Event(row["memory_id"], row["event"], row["old_memory"], row["new_memory"], row["at"]) for row in rows]

    def clear(self) -> None:
        """Forget every record and event."""
        with self._begin() as connection:
            connection.execute(delete(_MEMORIES))
            connection.execute(delete(_EVENTS))

    def close(self) -> None:
        """Let the file go. Later calls raise EngineClosedError; closing twice does nothing."""
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _select(self, query: Any) -> list[Record]:
        with self._begin() as connection:
            rows = connection.execute(query.order_by(_MEMORIES.c.position)).mappings().all()
        return [self._record(row) for row in rows]

    def _record(self, row: Any) -> Record:
        try:
            values = {name: row[name] for name in Record.__dataclass_fields__} | {"metadata": json.loads(row["metadata"])}
        except ValueError as error:
            raise StoreCorruptError(f"{self.path} is damaged: the metadata of memory {row['id']!r} is not JSON. Restore a backup.") from error
        return Record(**values)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        if self._closed:
            raise EngineClosedError("this memory was closed: make another")
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise StoreUnavailableError(f"cannot use {self.path} ({error.orig}): name a folder that can be written") from error
        except DatabaseError as error:
            raise StoreCorruptError(f"{self.path} is damaged ({error.orig}): restore a backup, or move the file away to start anew") from error


def _row(record: Record) -> dict[str, Any]:
    return asdict(replace(record, metadata={})) | {"metadata": json.dumps(record.metadata, ensure_ascii=False)}
