"""What the log of a session calls for, and what the store has of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypedDict

from lpm_core.chat import ChatFormat
from lpm_core.memory import Page, Turn
from lpm_core.settings import LPMConfig
from lpm_core.writer import Chunk, cut_chunks

__all__ = ["Fingerprints", "SessionPages"]


class Fingerprints(TypedDict):
    """What pages were made with."""

    backbone: str
    weights: str


@dataclass(frozen=True)
class SessionPages:
    """A session's turns that slots are written from, the pages stored of it, how many of these hold, and the chunks that follow them."""

    id: str
    turns: Sequence[Turn]
    pages: Sequence[Page]
    kept: int
    lacking: Sequence[Chunk]

    @classmethod
    def of(cls, session_id: str, turns: Sequence[Turn], pages: Sequence[Page], chat: ChatFormat, config: LPMConfig) -> Self:
        """Compare a session's log with its pages; the chunks are cut only where something is missing."""
        if _complete(pages, turns, chat):
            return cls(session_id, turns, pages, len(pages), [])
        whole = cls(session_id, turns, pages, 0, cut_chunks([(turn.role, turn.dated) for turn in turns], chat, config))
        kept = 0
        while kept < min(len(pages), len(whole.lacking)) and whole._is_of(pages[kept], kept):
            kept += 1
        return cls(session_id, turns, pages, kept, whole.lacking[kept:])

    @property
    def numbers(self) -> range:
        """The places, in the session, of the pages that it lacks."""
        return range(self.kept, self.kept + len(self.lacking))

    def owners(self, chunk: Chunk) -> tuple[str, ...]:
        """The id of the turn behind each slot of a chunk."""
        return tuple(self.turns[number].id for number in chunk.turns)

    def _is_of(self, page: Page, index: int) -> bool:
        """Whether a page was written from a chunk; one in quarantine names no turns by slot."""
        chunk = self.lacking[index]
        owners = self.owners(chunk)
        known = page.slot_turns == owners or page.quarantine is not None
        return known and (page.index, page.turn_ids, page.tokens) == (index, tuple(dict.fromkeys(owners)), len(chunk.ids))


def _complete(pages: Sequence[Page], turns: Sequence[Turn], chat: ChatFormat) -> bool:
    """Whether pages hold all of a session: every turn, and the last one, which may go on for pages, to its end."""
    named = list(dict.fromkeys(turn for page in pages for turn in page.turn_ids))
    if [page.index for page in pages] != list(range(len(pages))) or named != [turn.id for turn in turns]:
        return False
    last = turns[-1]
    own = [page.tokens for page in pages if page.turn_ids == (last.id,)]
    frame = len(chat.turn(last.role, ())[0])
    return not own or sum(own) - frame * len(own) == len(chat.content(last.dated))
