"""The schema of the store, as numbered steps. Append a function to `MIGRATIONS`; never edit or reorder one that has been released."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    column,
    func,
    insert,
    inspect,
    select,
    table,
    text,
)

from lpm_core.exceptions import StoreCorruptError, StoreVersionError

__all__ = ["MIGRATIONS", "migrate", "schema_version"]

# SQLite numbers rows by itself only where the key is declared INTEGER.
_KEY = BigInteger().with_variant(Integer, "sqlite")
_ADVISORY_LOCK = 0x4C504D  # "LPM"
_SCHEMA_VERSION = table("schema_version", column("version"), column("at"))


def _001_turns_pages_audit(connection: Connection) -> None:
    """Meta, users, sessions, turns, pages and audit.

    Text from outside is kept as UTF-8 bytes: PostgreSQL text has no NUL, and ciphertext fits the same columns. Users and
    sessions are found by the SHA-256 of their id: an id may be longer than an index entry may be, and a user's row outlives its
    name, so that a version never runs backwards. Times are microseconds since 1970 in UTC.
    """
    metadata = MetaData()
    meta = Table("meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False))
    Table(
        "users",
        metadata,
        Column("key", _KEY, primary_key=True),
        Column("digest", String(64), nullable=False, unique=True),
        Column("name", LargeBinary),
        Column("version", BigInteger, nullable=False),
        Column("last_position", BigInteger, nullable=False),
    )
    Table(
        "sessions",
        metadata,
        Column("key", _KEY, primary_key=True),
        Column("user_key", ForeignKey("users.key"), nullable=False),
        Column("digest", String(64), nullable=False),
        Column("name", LargeBinary, nullable=False),
        UniqueConstraint("user_key", "digest"),
    )
    turns = Table(
        "turns",
        metadata,
        Column("id", String(32), primary_key=True),
        Column("user_key", ForeignKey("users.key"), nullable=False),
        Column("session_key", ForeignKey("sessions.key"), nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("role", String(16), nullable=False),
        Column("source", String(16), nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("content", LargeBinary, nullable=False),
        UniqueConstraint("user_key", "position"),
    )
    Index("turns_by_session", turns.c.session_key, turns.c.position)
    Table(
        "pages",
        metadata,
        Column("key", _KEY, primary_key=True),
        Column("session_key", ForeignKey("sessions.key"), nullable=False),
        Column("page_index", Integer, nullable=False),
        Column("first_position", BigInteger, nullable=False),
        Column("slots", LargeBinary, nullable=False),
        Column("slot_turns", Text, nullable=False),
        Column("turn_ids", Text, nullable=False),
        Column("tokens", Integer, nullable=False),
        Column("backbone", Text, nullable=False),
        Column("weights", Text, nullable=False),
        Column("checksum", String(64), nullable=False),
        UniqueConstraint("session_key", "page_index"),
        sqlite_autoincrement=True,  # a key is never used twice: a damaged page can be deleted by key after it was read
    )
    Table(
        "audit",
        metadata,
        Column("key", _KEY, primary_key=True),
        Column("user_key", ForeignKey("users.key"), nullable=False, index=True),
        Column("action", String(32), nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("turn_ids", Text, nullable=False),
    )
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(meta).values(key="store_id", value=uuid.uuid4().hex))


def _002_turn_checksums(connection: Connection) -> None:
    """A checksum for every turn, and for every user the number of turns: a flipped or a lost one is seen when it is read."""
    connection.execute(text("ALTER TABLE turns ADD COLUMN checksum VARCHAR(64)"))
    connection.execute(text("ALTER TABLE users ADD COLUMN turn_count BIGINT NOT NULL DEFAULT 0"))
    connection.execute(text("UPDATE users SET turn_count = (SELECT count(*) FROM turns WHERE turns.user_key = users.key)"))
    rows = text(
        "SELECT turns.id, users.digest AS user_digest, sessions.digest AS session_digest, position, role, source, at, content FROM turns "
        "JOIN sessions ON sessions.key = turns.session_key JOIN users ON users.key = turns.user_key WHERE turns.id > :last ORDER BY turns.id LIMIT 500"
    )
    last = ""
    while portion := connection.execute(rows, {"last": last}).all():
        sums = []
        for turn_id, user_digest, session_digest, *fields, content in portion:
            if not isinstance(content, (bytes, memoryview)):
                continue  # damaged before: without a checksum it stays refused
            data = json.dumps([user_digest, session_digest, turn_id, *fields]).encode() + b"\0" + bytes(content)
            sums.append({"turn": turn_id, "sum": hashlib.sha256(data).hexdigest()})
        if sums:
            connection.execute(text("UPDATE turns SET checksum = :sum WHERE id = :turn"), sums)
        last = portion[-1][0]


def _003_data_keys(connection: Connection) -> None:
    """A wrapped data key for every user of an encrypted store, which also has a row `encryption` in meta."""
    kind = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    connection.execute(text(f"ALTER TABLE users ADD COLUMN data_key {kind}"))


def _004_quarantine(connection: Connection) -> None:
    """Why a page is in quarantine; none for one that is served."""
    connection.execute(text("ALTER TABLE pages ADD COLUMN quarantine TEXT"))


MIGRATIONS: list[Callable[[Connection], None]] = [_001_turns_pages_audit, _002_turn_checksums, _003_data_keys, _004_quarantine]


def schema_version(connection: Connection, place: str) -> int:
    """The number of migrations a database has seen, 0 for an empty one.

    Raises StoreVersionError for more than this version knows; `place` names the database in messages.
    """
    if not inspect(connection).has_table("schema_version"):
        return 0
    found = connection.execute(select(func.max(_SCHEMA_VERSION.c.version))).scalar()
    if not isinstance(found, int):
        raise StoreCorruptError(f"{place} has a schema_version table without a version: it is damaged, or not ours. Restore a backup, or use another database.")
    if found > len(MIGRATIONS):
        raise StoreVersionError(
            f"{place} was written by a newer version of this package (schema {found}; this one knows {len(MIGRATIONS)}). "
            "Nothing was changed. Upgrade latent-personal-memory, or use another database (LPM_STORE)."
        )
    return found


def migrate(connection: Connection, place: str) -> int:
    """Bring a database to the newest schema, inside the caller's write transaction; raises as `schema_version` does.

    Returns the schema it had: 0 if it was empty.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    done = schema_version(connection, place)
    if not done:
        version = Column("version", Integer, primary_key=True, autoincrement=False)
        Table("schema_version", MetaData(), version, Column("at", BigInteger, nullable=False)).create(connection)
    for number, migration in enumerate(MIGRATIONS[done:], start=done + 1):
        migration(connection)
        connection.execute(_SCHEMA_VERSION.insert().values(version=number, at=time.time_ns() // 1000))
    return done
