"""What is wrong with a store, and what of it can be put right: checksums, fingerprints, orphans, lost rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, delete, func, select, text, update

from lpm_core.exceptions import StoreCorruptError
from lpm_core.storage.encryption import Keyring
from lpm_core.storage.pages import PAGE_COLUMNS, decode_page
from lpm_core.storage.tables import PAGES, SESSIONS, TURNS, USERS
from lpm_core.storage.turns import TURN_COLUMNS, decode_turn
from lpm_core.store import MemoryStore

__all__ = ["DoctorReport", "Finding", "examine", "repair"]

_STREAM = 500  # rows read at a time
Remedy = Literal["rebuild", "drop", "none"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. No content is in it.

    kind: database, user, session, turn or page. key: which one. remedy: "rebuild" for what can be derived from the rest; "drop"
    for what is lost, and can only be taken out so that the rest is served again; "none" for what needs a backup.
    """

    kind: Literal["database", "user", "session", "turn", "page"]
    key: tuple[int, ...]
    problem: str
    remedy: Remedy
    repaired: bool = False


@dataclass(frozen=True)
class DoctorReport:
    """How much was looked at, and what was found."""

    users: int
    turns: int
    pages: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return all(finding.repaired for finding in self.findings)


def examine(store: MemoryStore, *, backbone: str | None = None, weights: str | None = None) -> DoctorReport:
    """Check every row of a store; with fingerprints, also that pages were made with these. Changes nothing."""
    findings: list[Finding] = []
    users = turns = pages = 0
    try:
        with store.database.begin() as connection:
            if not store.database.is_postgresql:
                findings += _structure(connection)
            users, turns, pages = (connection.execute(select(func.count()).select_from(table)).scalar() or 0 for table in (USERS, TURNS, PAGES))
            for check in (_users, _sessions, _turns):
                findings += check(connection, store.database.keyring)
            findings += _pages(connection, store.database.keyring, {"backbone": backbone, "weights": weights})
    except StoreCorruptError:
        findings.append(Finding("database", (), "the file cannot be read to its end", "none"))
    return DoctorReport(users, turns, pages, tuple(findings))


def repair(store: MemoryStore, report: DoctorReport, *, drop_damaged: bool = False) -> DoctorReport:
    """Put right what `examine` found: derived rows are deleted, to be rebuilt from the log, and indexes are made anew.

    drop_damaged: also delete turns that fail their checksum, and accept that lost ones are lost. Their memory cannot be read
    before that; an export or a backup brings them back.
    """
    findings = []
    with store.database.begin(write=True) as connection:
        for finding in sorted(report.findings, key=lambda finding: ("database", "page", "turn", "session", "user").index(finding.kind)):
            if finding.remedy == "rebuild" or (finding.remedy == "drop" and drop_damaged):
                _put_right(connection, finding)
                finding = replace(finding, repaired=True)
            findings.append(finding)
        if any(finding.repaired for finding in findings):
            store.database.owe_vacuum(connection)
    store.vacuum()
    return replace(report, findings=tuple(findings))


def _structure(connection: Connection) -> Iterator[Finding]:
    for (line,) in connection.execute(text("PRAGMA integrity_check")):
        if line != "ok":
            index = " index " in line
            yield Finding("database", (), "an index does not match its table" if index else "a page of the file is damaged", "rebuild" if index else "none")


def _users(connection: Connection, keyring: Keyring) -> Iterator[Finding]:
    turns = select(func.count()).select_from(TURNS).where(TURNS.c.user_key == USERS.c.key).scalar_subquery()
    query = select(USERS.c.key, USERS.c.name, USERS.c.digest, USERS.c.data_key, USERS.c.turn_count, turns)
    for key, name, digest, data_key, expected, found in connection.execute(query):
        try:
            if name is not None:
                keyring.owner(digest, data_key).user_id(name)
        except (TypeError, ValueError):
            yield Finding("user", (key,), "the id does not match its digest", "none")
        if expected != found:
            yield Finding("user", (key,), f"{found} turns are there where {expected} were stored", "drop")


def _sessions(connection: Connection, keyring: Keyring) -> Iterator[Finding]:
    turns = select(TURNS.c.id).where(TURNS.c.session_key == SESSIONS.c.key).exists()
    columns = (SESSIONS.c.key, SESSIONS.c.name, SESSIONS.c.digest, USERS.c.digest, USERS.c.data_key, turns)
    for key, name, digest, user, data_key, used in connection.execute(select(*columns).outerjoin_from(SESSIONS, USERS, USERS.c.key == SESSIONS.c.user_key)):
        if not used:
            yield Finding("session", (key,), "no turn is of this session", "rebuild")
            continue
        try:
            keyring.owner(user, data_key).session_id(name, digest)
        except (TypeError, ValueError):
            yield Finding("session", (key,), "the id does not match its digest", "none")


def _turns(connection: Connection, keyring: Keyring) -> Iterator[Finding]:
    query = (
        select(*TURN_COLUMNS, TURNS.c.user_key, SESSIONS.c.user_key, USERS.c.digest, USERS.c.data_key)
        .select_from(TURNS)
        .outerjoin(SESSIONS, SESSIONS.c.key == TURNS.c.session_key)
        .outerjoin(USERS, USERS.c.key == TURNS.c.user_key)
        .execution_options(yield_per=_STREAM)
    )
    for *row, user, owner, digest, data_key in connection.execute(query):
        try:
            decode_turn("", keyring.owner(digest, data_key), row)
            problem = "" if user == owner else "its session is of another user"
        except (TypeError, ValueError, OverflowError):
            problem = "it fails its checksum" if digest is not None and owner is not None else "its user or its session is missing"
        if problem:
            yield Finding("turn", (user, row[0]), problem, "drop")


def _pages(connection: Connection, keyring: Keyring, prints: Mapping[str, str | None]) -> Iterator[Finding]:
    query = (
        select(*PAGE_COLUMNS, USERS.c.digest.label("user_digest"), USERS.c.data_key)
        .select_from(PAGES)
        .outerjoin(SESSIONS, SESSIONS.c.key == PAGES.c.session_key)
        .outerjoin(USERS, USERS.c.key == SESSIONS.c.user_key)
        .execution_options(yield_per=_STREAM)
    )
    turns: tuple[object, set[str]] = (None, set())
    for row in connection.execute(query.order_by(PAGES.c.session_key)).mappings():
        if row["session_digest"] is None:
            problem = "its session is missing"
        elif any(row[name] != value for name, value in prints.items() if value is not None):
            problem = "it was made with another backbone or other weights"
        else:
            try:
                page = decode_page(dict(row), keyring.owner(str(row["user_digest"]), row["data_key"]))
                if turns[0] != row["session_key"]:
                    turns = (row["session_key"], set(connection.execute(select(TURNS.c.id).where(TURNS.c.session_key == row["session_key"])).scalars()))
                problem = "" if turns[1] >= {*page.turn_ids, *page.slot_turns} else "it names turns that are not in its session"
            except ValueError:
                problem = "it fails its checksum"
        if problem:
            yield Finding("page", (row["key"],), problem, "rebuild")


def _put_right(connection: Connection, finding: Finding) -> None:
    if finding.kind == "database":
        connection.execute(text("REINDEX"))
    elif finding.kind == "page":
        connection.execute(delete(PAGES).where(PAGES.c.key == finding.key[0]))
    elif finding.kind == "turn":
        user, position = finding.key
        connection.execute(delete(TURNS).where(TURNS.c.user_key == user, TURNS.c.position == position))
        _accept_loss(connection, user)
    elif finding.kind == "session":
        connection.execute(delete(PAGES).where(PAGES.c.session_key == finding.key[0]))
        connection.execute(delete(SESSIONS).where(SESSIONS.c.key == finding.key[0]))
    else:
        _accept_loss(connection, finding.key[0])


def _accept_loss(connection: Connection, user: int) -> None:
    """Take the turns a user has as all there are: pages are written again from them, and sessions without any go.

    The version moves on, so that no memory made from others is served.
    """
    sessions = select(SESSIONS.c.key).where(SESSIONS.c.user_key == user)
    connection.execute(delete(PAGES).where(PAGES.c.session_key.in_(sessions)))
    used = select(TURNS.c.id).where(TURNS.c.session_key == SESSIONS.c.key).exists()
    connection.execute(delete(SESSIONS).where(SESSIONS.c.user_key == user, ~used))
    turns = select(func.count()).select_from(TURNS).where(TURNS.c.user_key == user).scalar_subquery()
    connection.execute(update(USERS).where(USERS.c.key == user).values(turn_count=turns, version=USERS.c.version + 1))
