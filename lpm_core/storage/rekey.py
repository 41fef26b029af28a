"""The keys of a store changed in place: from none to some, and from one master key to the next. Each is one transaction.

What was there before, plain text or a key under the old master key, is out of the files when the store is vacuumed, which is done
at once unless another process is in the way, and else when it is next opened. Processes that have the store open must open it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from lpm_core.exceptions import StoreKeyError
from lpm_core.storage.database import ENCRYPTION, Database
from lpm_core.storage.encryption import Keyring, MasterKey, Owner, SealingKeyring
from lpm_core.storage.pages import PAGE_COLUMNS, decode_page, encode_page, serialise
from lpm_core.storage.tables import META, PAGES, SESSIONS, TURNS, USERS
from lpm_core.storage.turns import TURN_COLUMNS, check_turn, decode_turn, encode_turn
from lpm_core.storage.values import DamagedRowError, NewTurn

__all__ = ["Rekeyed", "encrypt_store", "rotate_key"]

_PORTION = 500  # turns in memory at a time


class Rekeyed(NamedTuple):
    """How many users' data has other keys now (0: all had them before), and whether the files were rewritten without the old."""

    users: int
    vacuumed: bool


def encrypt_store(url: str, master_key: str, on_turns: Callable[[int, int], None] = lambda _done, _total: None) -> Rekeyed:
    """Seal everything in a store that is not encrypted, under a new key for every user. Damaged pages are left out, to be rebuilt.

    on_turns: called with how many turns are done, and of how many. Raises StoreKeyError for a malformed key or a store that has
    another, StoreCorruptError for a damaged turn, session or user; then nothing was changed.
    """
    master, users = MasterKey(master_key), 0
    with _as_it_was(url, None, master_key) as database:
        if database is not None:
            with database.begin(write=True) as connection:
                database.lock_keys(connection)
                after = SealingKeyring.new(master, database.id)
                users = _seal_users(connection, database.keyring, after, on_turns)
                connection.execute(META.insert().values(key=ENCRYPTION, value=after.dump()))
                database.owe_vacuum(connection)
    return _vacuumed(url, master_key, users)


def rotate_key(url: str, master_key: str, new_key: str) -> Rekeyed:
    """Wrap the keys of a store under another master key; the data stays as it is, under its own keys.

    Who had a copy of the store and the old master key can still read the copy. Raises StoreKeyError for a key that is malformed or
    not the store's, StoreCorruptError for a damaged user key; then nothing was changed.
    """
    master, rows = MasterKey(new_key, "LPM_NEW_MASTER_KEY"), []
    with _as_it_was(url, master_key, new_key) as database:
        if database is not None:
            with database.begin(write=True) as connection:
                database.lock_keys(connection)
                before = database.keyring
                if not isinstance(before, SealingKeyring):
                    raise StoreKeyError(f"The store {database.place} is not encrypted. Encrypt it with `lpm encrypt`.")
                after = before.under(master)
                users = connection.execute(select(USERS.c.key, USERS.c.digest, USERS.c.data_key).where(USERS.c.data_key.is_not(None)))
                rows = [{"of": key, "data_key": after.wrap(before.unwrap(data_key, digest), digest)} for key, digest, data_key in users]
                if rows:
                    connection.execute(USERS.update().where(USERS.c.key == bindparam("of")), rows)
                connection.execute(META.update().where(META.c.key == ENCRYPTION).values(value=after.dump()))
                database.owe_vacuum(connection)
    return _vacuumed(url, new_key, len(rows))


@contextmanager
def _as_it_was(url: str, before: str | None, after: str) -> Iterator[Database | None]:
    """The store under the key it had before; None if it has the key that comes after, as a command that was interrupted may leave it."""
    try:
        database = Database(url, before)
    except StoreKeyError as error:
        try:
            Database(url, after).close()
        except StoreKeyError as other:
            raise (other if before is None else error) from None
        yield None
        return
    with closing(database):
        yield database


def _vacuumed(url: str, key: str, users: int) -> Rekeyed:
    with closing(Database(url, key)) as database:
        return Rekeyed(users, database.vacuum())


def _seal_users(connection: Connection, before: Keyring, after: SealingKeyring, on_turns: Callable[[int, int], None]) -> int:
    users = connection.execute(select(USERS.c.key, USERS.c.digest, USERS.c.name, USERS.c.data_key, USERS.c.turn_count).order_by(USERS.c.key)).all()
    done, total = 0, sum(user.turn_count for user in users)
    for key, plain_digest, name, no_key, _ in users:
        old, digest = before.owner(plain_digest, no_key), after.digest(plain_digest)
        # Of a forgotten user only the digest is left, which is made of the SHA-256 and not of the name for this reason.
        data_key = None if name is None else after.new_data_key(digest)
        new = after.owner(digest, data_key)
        try:
            sealed = None if name is None else new.seal(old.user_id(name).encode(), "users")
            for count in _seal_turns(connection, key, old, new):
                done += count
                on_turns(done, total)
            _seal_pages(connection, key, old, new)
            _seal_sessions(connection, key, old, new)
        except (TypeError, ValueError, OverflowError):
            raise DamagedRowError(f"user {key} has a row that cannot be read") from None
        connection.execute(USERS.update().where(USERS.c.key == key).values(digest=digest, name=sealed, data_key=data_key))
    # Rows of no user have no key: what can be derived goes, the rest is for the doctor.
    connection.execute(delete(PAGES).where(PAGES.c.session_key.not_in(select(SESSIONS.c.key))))
    for table in (TURNS, SESSIONS):
        if connection.execute(select(table.c.user_key).where(table.c.user_key.not_in(select(USERS.c.key)))).first():
            raise DamagedRowError(f"{table.name} has a row of no user")
    return len(users)


def _seal_turns(connection: Connection, user_key: int, old: Owner, new: Owner) -> Iterator[int]:
    same = (SESSIONS.c.key == TURNS.c.session_key) & (SESSIONS.c.user_key == TURNS.c.user_key)
    query = select(*TURN_COLUMNS).outerjoin_from(TURNS, SESSIONS, same).where(TURNS.c.user_key == user_key)
    last = 0
    while rows := connection.execute(query.where(TURNS.c.position > last).order_by(TURNS.c.position).limit(_PORTION)).all():
        sealed = []
        for row in rows:
            turn = decode_turn("", old, row)
            fields = check_turn(NewTurn(turn.session_id, turn.role, turn.content, turn.at, turn.source))
            columns = encode_turn(fields, turn.id, row[0], new, new.session_digest(turn.session_id.encode()))
            sealed.append({"of": turn.id, "content": columns["content"], "checksum": columns["checksum"]})
        connection.execute(TURNS.update().where(TURNS.c.id == bindparam("of")), sealed)
        last = rows[-1][0]
        yield len(rows)


def _seal_pages(connection: Connection, user_key: int, old: Owner, new: Owner) -> None:
    query = select(*PAGE_COLUMNS).join_from(PAGES, SESSIONS, SESSIONS.c.key == PAGES.c.session_key).where(SESSIONS.c.user_key == user_key)
    for key in connection.execute(query.with_only_columns(PAGES.c.key)).scalars().all():
        row = dict(connection.execute(query.where(PAGES.c.key == key)).mappings().one())
        try:
            page = decode_page(row, old)
        except ValueError:
            connection.execute(delete(PAGES).where(PAGES.c.key == key))
            continue
        columns = encode_page(page, serialise(page), row["first_position"], new, new.session_digest(page.session_id.encode()), row)
        connection.execute(PAGES.update().where(PAGES.c.key == key).values(slots=columns["slots"], checksum=columns["checksum"]))


def _seal_sessions(connection: Connection, user_key: int, old: Owner, new: Owner) -> None:
    for key, name, plain_digest in connection.execute(select(SESSIONS.c.key, SESSIONS.c.name, SESSIONS.c.digest).where(SESSIONS.c.user_key == user_key)).all():
        plain = old.session_id(name, plain_digest).encode()
        digest = new.session_digest(plain)
        connection.execute(SESSIONS.update().where(SESSIONS.c.key == key).values(digest=digest, name=new.seal(plain, "sessions", digest)))
