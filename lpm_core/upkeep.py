"""The half of `LPM` that looks after what is stored: forget, expire, rebuild, export, restore, quarantine, stats, doctor."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from lpm_core.backbone import Backbone
from lpm_core.bounds import SlotBounds
from lpm_core.checkpoint import MemoryWeights
from lpm_core.doctor import DoctorReport, examine
from lpm_core.doctor import repair as repair_store
from lpm_core.exceptions import UnknownUserError
from lpm_core.memory import Quarantined, Slots, UserMemory
from lpm_core.portable import RestoreReceipt, UserExport, adopt_pages, read_export, write_export
from lpm_core.stats import Stats, store_stats
from lpm_core.store import MemoryStore, Removed
from lpm_core.telemetry import traced
from lpm_core.validation import check_age, check_time, check_user_id

__all__ = ["ForgetReceipt", "Upkeep"]


@dataclass(frozen=True)
class ForgetReceipt:
    """What a call to forget removed: turns, whole sessions, and pages, which are written again from what is left.

    vacuumed: whether the files were rewritten without it. If another process was in the way they are at the next call that
    forgets, or when the store is next opened.
    """

    user_id: str
    turns: int
    pages: int
    sessions: int
    vacuumed: bool


class Upkeep(ABC):
    """What an engine does for the turns and pages in its store, besides reading and writing them."""

    backbone: Backbone
    weights: MemoryWeights
    store: MemoryStore
    bounds: SlotBounds

    @abstractmethod
    def _open(self) -> None:
        """Raise EngineClosedError after `close`."""

    @abstractmethod
    def _memory(self, user_id: str) -> tuple[UserMemory, Slots]:
        """The user's pages, brought up to date with the log."""

    @abstractmethod
    def _write_ahead(self, user_id: str, on_page: Callable[[int, int], None]) -> bool:
        """Write a user's missing pages one by one. False if the log changed meanwhile."""

    @abstractmethod
    def _drop_cache(self, user_id: str | None = None) -> None:
        """Hold no memory of a user, or (None) of anybody."""

    @traced("forget", lambda receipt: _removed([receipt]))
    def forget(
        self, user_id: str, *, turn_ids: Sequence[str] | None = None, session_id: str | None = None, before: datetime | str | None = None
    ) -> ForgetReceipt:
        """Delete turns, and rebuild the user's pages as if the turns had never been said.

        Exactly one of: turn_ids; session_id; before, which is all that was said earlier than this moment (a time without a
        zone is UTC). Raises InvalidInputError, UnknownUserError for a user who was never seen.
        """
        self._open()
        self._known(user_id)
        if session_id is not None:
            check_user_id(session_id, "session id")
        moment = None if before is None else check_time(before)
        removed = self.store.delete_turns(user_id, turn_ids, session_id=session_id, before=moment)
        self._memory(user_id)
        return self._receipt(user_id, removed)

    @traced("forget_user", lambda receipt: _removed([receipt]))
    def forget_user(self, user_id: str) -> ForgetReceipt:
        """Delete everything about a user. Raises UnknownUserError for a user who was never seen."""
        self._open()
        self._known(user_id)
        removed = self.store.delete_user(user_id)
        self._drop_cache(user_id)
        return self._receipt(user_id, removed)

    @traced("expire", lambda receipts: _removed(receipts))
    def expire(self, user_id: str | None = None, *, ttl: timedelta) -> list[ForgetReceipt]:
        """Forget what was said longer than `ttl` ago, by one user or (None) by all; one receipt for each who lost turns.

        Raises InvalidInputError for a negative ttl, UnknownUserError for a user who was never seen.
        """
        self._open()
        before = check_age(ttl)
        if user_id is not None:
            self._known(user_id)
        expired = {name: self.store.delete_turns(name, before=before) for name in ([user_id] if user_id is not None else self.store.users())}
        expired = {name: removed for name, removed in expired.items() if removed.turn_ids}
        for name in expired:
            self._memory(name)
        return [self._receipt(name, removed) for name, removed in expired.items()]

    def _receipt(self, user_id: str, removed: Removed) -> ForgetReceipt:
        return ForgetReceipt(user_id, len(removed.turn_ids), removed.pages, removed.sessions, self.store.vacuum())

    def export(self, user_id: str, path: str | Path) -> None:
        """Write a user's turns and pages to one checksummed file, for `restore` here or elsewhere.

        Raises UnknownUserError, StoreUnavailableError.
        """
        self._open()
        self._known(user_id)
        while True:
            memory, _ = self._memory(user_id)
            turns = self.store.turns(user_id)
            if self.store.version(user_id) == memory.version:  # else the history moved on meanwhile
                break
        pages = tuple(page for page in memory.pages if page.quarantine is None)
        write_export(UserExport(user_id, tuple(turns), pages, self.backbone.fingerprint, self.weights.fingerprint), path)

    def restore(self, path: str | Path) -> RestoreReceipt:
        """Add the turns of an exported file that are not in the store, at the end of their user's history.

        Doing it twice changes nothing more. Pages made with these weights and within their bounds are taken over, others are written from the log. Turns
        that were forgotten since the export come back. Raises InvalidInputError, StoreCorruptError, StoreVersionError.
        """
        self._open()
        export = read_export(path)
        check_user_id(export.user_id)
        added = self.store.import_turns(export.user_id, export.turns)
        if added and (export.backbone, export.weights) == (self.backbone.fingerprint, self.weights.fingerprint):
            adopt_pages(self.store, export, self.bounds)
        self._memory(export.user_id)
        return RestoreReceipt(export.user_id, len(added), len(export.turns) - len(added))

    def quarantine(self, user_id: str) -> list[Quarantined]:
        """A user's pages whose slots are withheld from every answer: the turns behind each, and why.

        A page gets there when it is written or read with slots that are not finite, or longer or shorter than its writer can make
        them. It leaves by `release`, or when one of the user's turns is forgotten, which writes all their pages anew.
        """
        self._open()
        check_user_id(user_id)
        return self.store.quarantine(user_id)

    def release(self, user_id: str, turn_ids: Sequence[str] | None = None) -> list[Quarantined]:
        """Write pages in quarantine anew from the log: all of a user's, or those of these turns. Returns what is in quarantine after that.

        A page that comes out of bounds again stays; `forget` its turns to be rid of it. Raises UnknownUserError for a user who was
        never seen.
        """
        self._open()
        self._known(user_id)
        self.store.release(user_id, turn_ids)
        self._memory(user_id)
        return self.store.quarantine(user_id)

    def stats(self, user_id: str | None = None) -> Stats:
        """Counts, sizes and times of one user's memory, or (None) of the whole store, of which they name nobody.

        Raises UnknownUserError for a user who was never seen.
        """
        self._open()
        if user_id is not None:
            check_user_id(user_id)
        return store_stats(self.store, user_id)

    def doctor(self, *, repair: bool = False, drop_damaged: bool = False) -> DoctorReport:
        """Check every row of the store; repair: delete what is damaged or stale and can be derived, and write it anew.

        drop_damaged: also delete turns that are damaged, which nothing can derive; without that their users' memory stays refused.
        """
        self._open()
        report = examine(self.store, backbone=self.backbone.fingerprint, weights=self.weights.fingerprint)
        if (repair or drop_damaged) and report.findings:
            report = repair_store(self.store, report, drop_damaged=drop_damaged)
            self._drop_cache()
            if report.sound:
                for user_id in self.store.users():
                    self._memory(user_id)
        return report

    def rebuild(self, user_id: str | None = None, *, on_progress: Callable[[float, int], None] = lambda _done, _total: None) -> int:
        """Write the pages that are missing, or were made with another backbone or other memory weights, of one user or (None) of all.

        Run it in a thread after a change of weights: meanwhile every call answers as it will afterwards, and writes what it needs by
        itself. Each page counts as soon as it is written, so that what is interrupted (Ctrl-C, `close`, an exception out of
        `on_progress`) goes on from there next time. on_progress: told how many users are done, the current one in part, and of
        how many. Returns how many pages were written. Raises UnknownUserError for a user who was never seen.
        """
        self._open()
        if user_id is not None:
            self._known(user_id)
        names = self.store.users() if user_id is None else [user_id]
        written = 0
        for number, name in enumerate(names):

            def on_page(done: int, lacking: int, number: int = number) -> None:
                nonlocal written
                written += 1
                on_progress(number + done / lacking, len(names))

            while not self._write_ahead(name, on_page):
                pass  # the history moved on meanwhile
            on_progress(number + 1, len(names))
        return written

    def _known(self, user_id: str) -> None:
        check_user_id(user_id)
        if not self.store.exists(user_id):
            raise UnknownUserError(f"there is no user {user_id!r} in this store; `users()` lists those there are")

    # ---------------------------------------------------------------- async twins

    async def aforget(self, user_id: str, **options: Any) -> ForgetReceipt:
        """`forget` without blocking the event loop."""
        return await asyncio.to_thread(partial(self.forget, user_id, **options))

    async def aforget_user(self, user_id: str) -> ForgetReceipt:
        """`forget_user` without blocking the event loop."""
        return await asyncio.to_thread(self.forget_user, user_id)

    async def aexpire(self, user_id: str | None = None, *, ttl: timedelta) -> list[ForgetReceipt]:
        """`expire` without blocking the event loop."""
        return await asyncio.to_thread(partial(self.expire, user_id, ttl=ttl))

    async def arebuild(self, user_id: str | None = None, *, on_progress: Callable[[float, int], None] = lambda _done, _total: None) -> int:
        """`rebuild` without blocking the event loop; `on_progress` is called in another thread."""
        return await asyncio.to_thread(partial(self.rebuild, user_id, on_progress=on_progress))

    async def aexport(self, user_id: str, path: str | Path) -> None:
        """`export` without blocking the event loop."""
        await asyncio.to_thread(self.export, user_id, path)

    async def arestore(self, path: str | Path) -> RestoreReceipt:
        """`restore` without blocking the event loop."""
        return await asyncio.to_thread(self.restore, path)


def _removed(receipts: Sequence[ForgetReceipt]) -> dict[str, int]:
    """The counts of receipts, added up."""
    return {name: sum(getattr(receipt, name) for receipt in receipts) for name in ("turns", "pages", "sessions")}
