"""The store: turn log (the truth), pages (derived from it) and audit trail, in SQLite or PostgreSQL."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, Connection, Select, delete, select

from lpm_core.exceptions import InvalidInputError, StoreUnavailableError
from lpm_core.memory import Page, Quarantined, Turn
from lpm_core.settings import LPMSettings
from lpm_core.storage.database import Database
from lpm_core.storage.encryption import Owner
from lpm_core.storage.pages import PAGE_COLUMNS, check_pages, decode_page, encode_page, serialise
from lpm_core.storage.tables import AUDIT, PAGES, SESSIONS, TURNS, USERS
from lpm_core.storage.turns import TURN_COLUMNS, check_turn, decode_turn, encode_turn
from lpm_core.storage.values import (
    AuditRow,
    DamagedRowError,
    NewTurn,
    Removed,
    batches,
    known_form,
    microseconds,
    moment,
    named,
    plain,
)

__all__ = ["AuditRow", "MemoryStore", "NewTurn", "Removed"]

_log = logging.getLogger(__name__)


class _User(NamedTuple):
    key: int
    version: int
    last_position: int
    turn_count: int
    named: bool
    data_key: bytes | None


class MemoryStore:
    """Turn log, pages and audit trail of all users, by SQLAlchemy URL. Safe to share between threads.

    master_key: 32 bytes in base64 (None: LPM_MASTER_KEY; if that is not set either, the store is not encrypted). Texts, ids and
    slots are sealed under it: see `lpm_core.storage.encryption`. It must be that of the store; a new store takes it as its own.

    A call that writes is one transaction, durable when it returns. Errors: InvalidInputError for a URL, id or text that cannot
    be used; MissingDependencyError without the database's driver or `cryptography`; StoreKeyError for a key that is malformed or not
    the store's; StoreUnavailableError, StoreCorruptError and StoreVersionError for the database; EngineClosedError after `close()`.
    """

    def __init__(self, url: str, master_key: str | None = None) -> None:
        setting = LPMSettings().master_key
        self.database = Database(url, setting.get_secret_value() if master_key is None and setting is not None else master_key)

    @property
    def id(self) -> str:
        """Random, made with the database: tells one store from another."""
        return self.database.id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Wait for a running write, then let the database go. Closing twice is fine."""
        self.database.close()

    # The turn log

    def append_turns(self, user_id: str, turns: Sequence[NewTurn]) -> list[Turn]:
        """Add turns to the end of a user's log, all or none; durable when it returns. No turns, no change."""
        return self._append(user_id, [(uuid.uuid4().hex, turn) for turn in turns], "remember")

    def import_turns(self, user_id: str, turns: Sequence[Turn]) -> list[Turn]:
        """Add the turns whose ids the user's log does not have, with their ids, to its end; returns those added.

        Raises InvalidInputError for an id that cannot be one, or is that of another user's turn.
        """
        ids = [turn.id for turn in turns]
        if len(known_form(ids)) != len(ids):
            raise InvalidInputError("The turns to import have ids that are not 32 hex digits, or twice the same one.")
        return self._append(user_id, [(turn.id, NewTurn(turn.session_id, turn.role, turn.content, turn.at, turn.source)) for turn in turns], "import")

    def _append(self, user_id: str, turns: Sequence[tuple[str, NewTurn]], action: str) -> list[Turn]:
        name, digest = named(user_id, "user_id")[0], self._digest(user_id)
        if not turns:
            return []
        rows = {turn_id: check_turn(turn) for turn_id, turn in turns}
        with self.database.begin(write=True) as connection:
            user = _lock_user(connection, digest) or self._add_user(connection, digest)
            if action == "import":
                turns = _missing(connection, user, turns)
                if not turns:
                    return []
            data_key = user.data_key if user.named else self.database.keyring.new_data_key(digest)
            owner = self.database.keyring.owner(digest, data_key)
            sessions = {session_id: _add_session(connection, user.key, owner, session_id) for session_id in dict.fromkeys(turn.session_id for _, turn in turns)}
            stored: list[Turn] = []
            values = []
            for position, (turn_id, turn) in enumerate(turns, start=user.last_position + 1):
                key, session_digest = sessions[turn.session_id]
                row = encode_turn(rows[turn_id], turn_id, position, owner, session_digest)
                values.append(row | {"user_key": user.key, "session_key": key})
                stored.append(Turn(turn_id, user_id, turn.session_id, turn.role, turn.content, moment(row["at"]), turn.source))
            connection.execute(TURNS.insert(), values)
            grown = {"last_position": user.last_position + len(stored), "turn_count": user.turn_count + len(stored)}
            _changed(connection, user, action, [turn.id for turn in stored], name=owner.seal(name, "users"), data_key=data_key, **grown)
        return stored

    def turns(self, user_id: str, *, session_id: str | None = None, turn_ids: Iterable[str] | None = None) -> list[Turn]:
        """A user's turns in the order they were added: all, of one session, or those named. Unknown ids are passed over.

        A turn that fails its checksum, or is missing, raises StoreCorruptError: part of a history is not served as all of it.
        """
        digest = self._digest(user_id)
        query = _turn_query(digest)
        if session_id is not None:
            query = query.where(SESSIONS.c.digest == self._session_digest(digest, session_id))
        portions = [None] if turn_ids is None else batches(known_form(turn_ids))
        with self.database.begin() as connection:
            rows = [tuple(row) for ids in portions for row in connection.execute(query if ids is None else query.where(TURNS.c.id.in_(ids)))]
            whole = session_id is None and turn_ids is None
            expected = connection.execute(select(USERS.c.turn_count).where(USERS.c.digest == digest)).scalar() or 0 if whole else len(rows)
            try:
                owner = self.database.keyring.owner(digest, rows[0][-1] if rows else None)
                turns = [decode_turn(user_id, owner, row[:-1]) for row in sorted(rows, key=lambda row: row[0])]
            except (TypeError, ValueError, OverflowError):
                raise DamagedRowError("a turn cannot be read") from None
            if len(turns) != expected:
                raise DamagedRowError(f"a user has {len(turns)} turns where {expected} were stored")
        return turns

    def users(self) -> list[str]:
        """The users who have turns, in the order they were first seen."""
        columns = (USERS.c.name, USERS.c.digest, USERS.c.data_key)
        query = select(*columns).where(select(TURNS.c.id).where(TURNS.c.user_key == USERS.c.key).exists()).order_by(USERS.c.key)
        with self.database.begin() as connection:
            try:
                return [self.database.keyring.owner(digest, data_key).user_id(name) for name, digest, data_key in connection.execute(query)]
            except (TypeError, ValueError):
                raise DamagedRowError("a user id cannot be read") from None

    def exists(self, user_id: str) -> bool:
        """Whether the user was ever seen, and not deleted since."""
        query = select(USERS.c.key).where(USERS.c.digest == self._digest(user_id), USERS.c.name.is_not(None))
        with self.database.begin() as connection:
            return connection.execute(query).first() is not None

    def version(self, user_id: str) -> int:
        """How many writes have changed a user's history; 0 for a user never seen. It never runs backwards, not even over `delete_user`.

        Read it before the turns that pages are made from: `replace_pages` then refuses pages of a history that has moved on.
        """
        with self.database.begin() as connection:
            found = connection.execute(select(USERS.c.version).where(USERS.c.digest == self._digest(user_id))).scalar()
        return int(found or 0)

    # Deletion

    def delete_turns(self, user_id: str, turn_ids: Iterable[str] | None = None, *, session_id: str | None = None, before: datetime | None = None) -> Removed:
        """Delete turns, and every page of their user: those named, of a session, or said before a moment. Unknown ids are passed over.

        Exactly one of the three is given. The bytes are gone from the files after `vacuum`.
        """
        if [turn_ids is None, session_id is None, before is None].count(False) != 1:
            raise InvalidInputError("Give exactly one of turn_ids, session_id and before.")
        digest = self._digest(user_id)
        conditions: list[ColumnElement[bool]]
        if turn_ids is not None:
            conditions = [TURNS.c.id.in_(ids) for ids in batches(known_form(turn_ids))]
        elif session_id is not None:
            conditions = [SESSIONS.c.digest == self._session_digest(digest, session_id)]
        elif before is not None:
            conditions = [TURNS.c.at < microseconds(before)]
        with self.database.begin(write=True) as connection:
            user = _lock_user(connection, digest)
            if user is None:
                return Removed((), 0, 0)
            query = select(TURNS.c.position, TURNS.c.id).join_from(TURNS, SESSIONS, SESSIONS.c.key == TURNS.c.session_key)
            mine = TURNS.c.user_key == user.key
            found = sorted(tuple(row) for condition in conditions for row in connection.execute(query.where(mine, condition)))
            if not found:
                return Removed((), 0, 0)
            for positions in batches([position for position, _ in found]):
                connection.execute(delete(TURNS).where(mine, TURNS.c.position.in_(positions)))
            # All pages of the user: consolidation refines them together, so that any may know something of the turns that go.
            of_user = select(SESSIONS.c.key).where(SESSIONS.c.user_key == user.key)
            pages = connection.execute(delete(PAGES).where(PAGES.c.session_key.in_(of_user))).rowcount
            emptied = ~select(TURNS.c.id).where(TURNS.c.session_key == SESSIONS.c.key).exists()
            sessions = connection.execute(delete(SESSIONS).where(SESSIONS.c.user_key == user.key, emptied)).rowcount
            removed = tuple(turn_id for _, turn_id in found)
            _changed(connection, user, "forget", removed, turn_count=user.turn_count - len(removed))
            self.database.owe_vacuum(connection)
        return Removed(removed, pages, sessions)

    def delete_user(self, user_id: str) -> Removed:
        """Delete a user's turns, pages, id and data key. The bytes are gone from the files after `vacuum`.

        Without the key, rows of an encrypted store that outlive it somewhere can be read by nobody; a backup that has both can still
        be. What stays is the digest of the id, the version and the audit trail, so that a deletion can be shown to have happened.
        """
        digest = self._digest(user_id)
        with self.database.begin(write=True) as connection:
            user = _lock_user(connection, digest)
            if user is None or not user.named:
                return Removed((), 0, 0)
            removed = tuple(connection.execute(select(TURNS.c.id).where(TURNS.c.user_key == user.key).order_by(TURNS.c.position)).scalars())
            mine = select(SESSIONS.c.key).where(SESSIONS.c.user_key == user.key)
            pages = connection.execute(delete(PAGES).where(PAGES.c.session_key.in_(mine))).rowcount
            connection.execute(delete(TURNS).where(TURNS.c.user_key == user.key))
            sessions = connection.execute(delete(SESSIONS).where(SESSIONS.c.user_key == user.key)).rowcount
            _changed(connection, user, "forget_user", removed, name=None, data_key=None, turn_count=0)
            self.database.owe_vacuum(connection)
        return Removed(removed, pages, sessions)

    def vacuum(self) -> bool:
        """Rewrite the files without what was deleted. False if another process is in the way: the next vacuum or opening makes up for it."""
        return self.database.vacuum()

    def audit(self, user_id: str) -> list[AuditRow]:
        """What was done to a user's history, oldest first; it outlives `delete_user`."""
        query = (
            select(AUDIT.c.action, AUDIT.c.at, AUDIT.c.turn_ids)
            .join_from(AUDIT, USERS, USERS.c.key == AUDIT.c.user_key)
            .where(USERS.c.digest == self._digest(user_id))
            .order_by(AUDIT.c.key)
        )
        with self.database.begin() as connection:
            try:
                return [AuditRow(action, moment(at), tuple(json.loads(turn_ids))) for action, at, turn_ids in connection.execute(query)]
            except (TypeError, ValueError, OverflowError):
                raise DamagedRowError("an audit row cannot be read") from None

    # Pages

    def pages(self, user_id: str, *, backbone: str, weights: str) -> list[Page]:
        """A user's pages made with these fingerprints, in the order of their turns; damaged ones are dropped, to be rebuilt."""
        return self._pages(user_id, PAGES.c.backbone == plain(backbone, "backbone"), PAGES.c.weights == plain(weights, "weights"))

    def _pages(self, user_id: str, *conditions: ColumnElement[bool]) -> list[Page]:
        digest = self._digest(user_id)
        query = (
            select(*PAGE_COLUMNS, USERS.c.data_key)
            .join_from(PAGES, SESSIONS, SESSIONS.c.key == PAGES.c.session_key)
            .join(USERS, USERS.c.key == SESSIONS.c.user_key)
            .where(USERS.c.digest == digest, *conditions)
            .order_by(PAGES.c.first_position, PAGES.c.page_index)
        )
        with self.database.begin() as connection:
            rows = connection.execute(query).mappings().all()
            owner = self.database.keyring.owner(digest, rows[0]["data_key"] if rows else None)
        pages: list[Page] = []
        damaged: list[int] = []
        for row in rows:
            try:
                pages.append(decode_page(dict(row), owner))
            except ValueError:
                damaged.append(row["key"])
        if damaged:
            _log.warning("dropped %d damaged page(s) out of %d in %s; they are rebuilt from the turn log", len(damaged), len(rows), self.database.place)
            with suppress(StoreUnavailableError), self.database.begin(write=True) as connection:
                for keys in batches(damaged):
                    connection.execute(delete(PAGES).where(PAGES.c.key.in_(keys)))
        return pages

    def replace_pages(self, user_id: str, session_id: str, pages: Sequence[Page], *, from_index: int, backbone: str, weights: str, version: int) -> bool:
        """Put `pages` in place of a session's pages with index >= `from_index`, whatever their fingerprints.

        Returns False, with nothing written, if the user's history is no longer at `version`. Raises InvalidInputError for a page
        that is not of this session, or names turns that are not in it.
        """
        check_pages(pages, session_id, from_index)
        prints = {"backbone": plain(backbone, "backbone"), "weights": plain(weights, "weights")}
        # The tensors are serialised before the transaction: no other writer waits for that.
        blobs = [(page, serialise(page)) for page in pages]
        with self.database.begin(write=True) as connection:
            user = _lock_user(connection, self._digest(user_id))
            if (user.version if user else 0) != version:
                return False
            session, rows = self._page_rows(connection, user, user_id, session_id, blobs, prints)
            connection.execute(delete(PAGES).where(PAGES.c.session_key == session, PAGES.c.page_index >= from_index))
            if rows:
                connection.execute(PAGES.insert(), rows)
        return True

    def put_pages(self, user_id: str, pages: Sequence[Page], *, backbone: str, weights: str, version: int, keep: bool = False) -> bool:
        """Put pages of a user, of any sessions, each in its place, whatever is there; all or none. The others stay.

        keep: leave a page that is there already, from the same turns and with the same fingerprints: it may have been refined since.
        Returns False, with nothing written, if the user's history is no longer at `version`. Raises InvalidInputError as
        `replace_pages` does.
        """
        sessions: dict[str, list[tuple[Page, bytes]]] = {}
        for page in pages:
            sessions.setdefault(page.session_id, []).append((page, serialise(page)))
        for session_id, blobs in sessions.items():
            check_pages([page for page, _ in blobs], session_id, 0)
        prints = {"backbone": plain(backbone, "backbone"), "weights": plain(weights, "weights")}
        with self.database.begin(write=True) as connection:
            user = _lock_user(connection, self._digest(user_id))
            if (user.version if user else 0) != version:
                return False
            for session_id, blobs in sessions.items():
                session, rows = self._page_rows(connection, user, user_id, session_id, blobs, prints)
                for row in rows:
                    place = (PAGES.c.session_key == session) & (PAGES.c.page_index == row["page_index"])
                    same = [PAGES.c[name] == row[name] for name in ("slot_turns", "turn_ids", "tokens", "backbone", "weights")]
                    if not keep or connection.execute(select(PAGES.c.key).where(place, *same)).first() is None:
                        connection.execute(delete(PAGES).where(place))
                        connection.execute(PAGES.insert().values(**row))
        return True

    def _page_rows(
        self, connection: Connection, user: _User | None, user_id: str, session_id: str, pages: Sequence[tuple[Page, bytes]], prints: Mapping[str, str]
    ) -> tuple[int, list[dict[str, Any]]]:
        """The key of a session, and the rows of its pages, each given with its serialised slots; the user's row is held."""
        digest = self._digest(user_id)
        session_digest = self._session_digest(digest, session_id)
        session = _session_key(connection, user.key, session_digest) if user else 0
        found = connection.execute(select(TURNS.c.id, TURNS.c.position).where(TURNS.c.session_key == session))
        positions: dict[str, int] = dict(tuple(row) for row in found)
        owner = self.database.keyring.owner(digest, user.data_key if user else None)
        rows = []
        for page, slots in pages:
            if not positions.keys() >= {*page.turn_ids, *page.slot_turns}:
                raise InvalidInputError(f"Page {page.index} names turns that are not in its session. Make pages from turns(user_id, session_id=...).")
            position = min(positions[turn_id] for turn_id in page.turn_ids)
            rows.append(encode_page(page, slots, position, owner, session_digest, prints) | {"session_key": session})
        return session, rows

    def quarantine(self, user_id: str) -> list[Quarantined]:
        """A user's pages in quarantine, whatever their fingerprints, in the order of their turns."""
        pages = self._pages(user_id, PAGES.c.quarantine.is_not(None))
        return [Quarantined(page.session_id, page.turn_ids, page.quarantine) for page in pages if page.quarantine is not None]

    def release(self, user_id: str, turn_ids: Iterable[str] | None = None) -> tuple[str, ...]:
        """Delete a user's pages in quarantine, so that they are written again: all, or those of these turns. Returns the turns behind them."""
        digest = self._digest(user_id)
        wanted = None if turn_ids is None else frozenset(known_form(turn_ids))
        mine = select(PAGES.c.key, PAGES.c.turn_ids).join_from(PAGES, SESSIONS, SESSIONS.c.key == PAGES.c.session_key)
        with self.database.begin(write=True) as connection:
            user = _lock_user(connection, digest)
            if user is None:
                return ()
            rows = connection.execute(mine.where(SESSIONS.c.user_key == user.key, PAGES.c.quarantine.is_not(None)).order_by(PAGES.c.key)).all()
            try:
                behind: dict[int, list[str]] = {key: json.loads(turns) for key, turns in rows}
            except (TypeError, ValueError):
                raise DamagedRowError("a page in quarantine cannot be read") from None
            chosen = [key for key, turns in behind.items() if wanted is None or not wanted.isdisjoint(turns)]
            released = tuple(dict.fromkeys(turn for key in chosen for turn in behind[key]))
            for keys in batches(chosen):
                connection.execute(delete(PAGES).where(PAGES.c.key.in_(keys)))
            if chosen:
                _changed(connection, user, "release", released)
        return released

    def _digest(self, user_id: str) -> str:
        return self.database.keyring.digest(named(user_id, "user_id")[1])

    def _session_digest(self, user_digest: str, session_id: str) -> str:
        return self.database.keyring.digest(named(session_id, "session_id")[1], user_digest)

    def _add_user(self, connection: Connection, digest: str) -> _User:
        # Another process may be adding the same user: whoever is second waits here, and finds the row of the first.
        row = {"digest": digest, "version": 0, "last_position": 0, "turn_count": 0}
        connection.execute(self.database.insert(USERS).values(**row).on_conflict_do_nothing(index_elements=["digest"]))
        user = _lock_user(connection, digest)
        if user is None:
            raise DamagedRowError("a user row is missing")
        return user


def _turn_query(digest: str) -> Select[tuple[object, ...]]:
    """The turns of one user: the columns that `decode_turn` takes, and the user's data key."""
    return (
        select(*TURN_COLUMNS, USERS.c.data_key)
        .join_from(TURNS, SESSIONS, (SESSIONS.c.key == TURNS.c.session_key) & (SESSIONS.c.user_key == TURNS.c.user_key))
        .join(USERS, USERS.c.key == TURNS.c.user_key)
        .where(USERS.c.digest == digest)
        .order_by(TURNS.c.position)
    )


def _lock_user(connection: Connection, digest: str) -> _User | None:
    """The user's row, held against other writers until the transaction ends (SQLite holds the whole file)."""
    columns = (USERS.c.key, USERS.c.version, USERS.c.last_position, USERS.c.turn_count, USERS.c.name.is_not(None), USERS.c.data_key)
    row = connection.execute(select(*columns).where(USERS.c.digest == digest).with_for_update()).one_or_none()
    return None if row is None else _User(row[0], row[1], row[2], row[3], bool(row[4]), row[5])


def _session_key(connection: Connection, user_key: int, digest: str) -> int:
    """The key of a user's session, 0 if there is none."""
    found = connection.execute(select(SESSIONS.c.key).where(SESSIONS.c.user_key == user_key, SESSIONS.c.digest == digest)).scalar()
    return int(found or 0)


def _add_session(connection: Connection, user_key: int, owner: Owner, session_id: str) -> tuple[int, str]:
    """The key and the digest of a user's session, which is made if there is none; the user's row is held."""
    name, _ = named(session_id, "session_id")
    digest = owner.session_digest(name)
    if not (key := _session_key(connection, user_key, digest)):
        connection.execute(SESSIONS.insert().values(user_key=user_key, digest=digest, name=owner.seal(name, "sessions", digest)))
        key = _session_key(connection, user_key, digest)
    return key, digest


def _missing(connection: Connection, user: _User, turns: Sequence[tuple[str, NewTurn]]) -> list[tuple[str, NewTurn]]:
    """Those of `turns` that are not in the log yet."""
    there: set[str] = set()
    for ids in batches([turn_id for turn_id, _ in turns]):
        for turn_id, owner in connection.execute(select(TURNS.c.id, TURNS.c.user_key).where(TURNS.c.id.in_(ids))):
            if owner != user.key:
                raise InvalidInputError(f"The turn {turn_id} to import is in the history of another user. Import into an empty store.")
            there.add(turn_id)
    return [(turn_id, turn) for turn_id, turn in turns if turn_id not in there]


def _changed(connection: Connection, user: _User, action: str, turn_ids: Sequence[str], **values: object) -> None:
    """Bump the version and write the audit row of a change."""
    connection.execute(USERS.update().where(USERS.c.key == user.key).values(version=user.version + 1, **values))
    now = microseconds(datetime.now(UTC))
    connection.execute(AUDIT.insert().values(user_key=user.key, action=action, at=now, turn_ids=json.dumps(list(turn_ids))))
