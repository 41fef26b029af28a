"""The half of `LPM` that looks after what is stored: forget, expire, export, restore, doctor."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.doctor import DoctorReport, examine
from lpm_core.doctor import repair as repair_store
from lpm_core.exceptions import UnknownUserError
from lpm_core.memory import Slots, UserMemory
from lpm_core.portable import RestoreReceipt, UserExport, adopt_pages, read_export, write_export
from lpm_core.store import MemoryStore, Removed
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

    @abstractmethod
    def _open(self) -> None:
        """Raise EngineClosedError after `close`."""

    @abstractmethod
    def _memory(self, user_id: str) -> tuple[UserMemory, Slots]:
        """The user's pages, brought up to date with the log."""

    @abstractmethod
    def _drop_cache(self, user_id: str | None = None) -> None:
        """Hold no memory of a user, or (None) of anybody."""

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

    def forget_user(self, user_id: str) -> ForgetReceipt:
        """Delete everything about a user. Raises UnknownUserError for a user who was never seen."""
        self._open()
        self._known(user_id)
        removed = self.store.delete_user(user_id)
        self._drop_cache(user_id)
        return self._receipt(user_id, removed)

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
        write_export(UserExport(user_id, tuple(turns), memory.pages, self.backbone.fingerprint, self.weights.fingerprint), path)

    def restore(self, path: str | Path) -> RestoreReceipt:
        """Add the turns of an exported file that are not in the store, at the end of their user's history.

        Doing it twice changes nothing more. Pages made with these weights are taken over, others are written from the log. Turns
        that were forgotten since the export come back. Raises InvalidInputError, StoreCorruptError, StoreVersionError.
        """
        self._open()
        export = read_export(path)
        check_user_id(export.user_id)
        added = self.store.import_turns(export.user_id, export.turns)
        if added and (export.backbone, export.weights) == (self.backbone.fingerprint, self.weights.fingerprint):
            adopt_pages(self.store, export, self.weights.config)
        self._memory(export.user_id)
        return RestoreReceipt(export.user_id, len(added), len(export.turns) - len(added))

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

    async def aexport(self, user_id: str, path: str | Path) -> None:
        """`export` without blocking the event loop."""
        await asyncio.to_thread(self.export, user_id, path)

    async def arestore(self, path: str | Path) -> RestoreReceipt:
        """`restore` without blocking the event loop."""
        return await asyncio.to_thread(self.restore, path)
