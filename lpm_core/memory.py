"""The values that pass between the parts of the engine. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import torch
from torch import Tensor

from lpm_core.dates import resolve

__all__ = ["Answer", "Evidence", "FinishReason", "Page", "Quarantined", "Recall", "Role", "Slots", "Source", "ToolCall", "Turn", "Usage", "UserMemory"]

Role = Literal["user", "assistant", "system", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
Source = Literal["user", "assistant", "tool", "import"]


@dataclass(frozen=True)
class Turn:
    """One message of a user's history, as the turn log keeps it."""

    id: str
    user_id: str
    session_id: str
    role: Role
    content: str
    at: datetime
    source: Source

    @property
    def dated(self) -> str:
        """The content as it is remembered: with the dates of relative times."""
        return resolve(self.content, self.at)


@dataclass(frozen=True)
class Page:
    """Slots written from one chunk of one session. Immutable and derived: it can be rebuilt from its turns.

    `slots` is [G, S, d_mem] in float32; `slot_turns[s]` is the id of the turn that slot s was written from. `quarantine` is
    why its slots are withheld (S is 0 then), None for a page that is served.
    """

    session_id: str
    index: int
    slots: Tensor
    slot_turns: tuple[str, ...]
    turn_ids: tuple[str, ...]
    tokens: int
    quarantine: str | None = None


@dataclass(frozen=True)
class Quarantined:
    """A page whose slots are withheld: the turns it was written from, and why. They are in the log, and change no answer."""

    session_id: str
    turn_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Slots:
    """All slots of a user: `values` [G, N, d_mem], and the ids of the turns behind each of the N: one, or those of slots that were merged."""

    values: Tensor
    turns: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class UserMemory:
    """A user's pages in the order they were written, and the version they belong to."""

    user_id: str
    version: int
    pages: tuple[Page, ...]

    @property
    def withheld(self) -> frozenset[str]:
        """Ids of the turns behind pages in quarantine."""
        return frozenset(turn for page in self.pages if page.quarantine is not None for turn in page.turn_ids)

    def slots(self, banks: int, slot_size: int) -> Slots:
        """The pages side by side: [G, N, d_mem]; N is 0 for a user without a history."""
        if not self.pages:
            return Slots(torch.zeros(banks, 0, slot_size), ())
        return Slots(torch.cat([page.slots for page in self.pages], dim=1), tuple((turn,) for page in self.pages for turn in page.slot_turns))


@dataclass(frozen=True)
class Evidence:
    """A turn that the read attention points to, and its share of the attention (0 to 1)."""

    turn: Turn
    weight: float


@dataclass(frozen=True)
class Recall:
    """What memory says about a message: soft tokens [H, d], attention [H, N], the turns behind it."""

    soft_prompt: Tensor
    slot_weights: Tensor
    evidence: Sequence[Evidence]


@dataclass(frozen=True)
class Usage:
    """What an answer cost: tokens, bytes of KV cache of the prompt, milliseconds."""

    prompt_tokens: int
    soft_tokens: int
    output_tokens: int
    kv_bytes: int
    search_ms: float
    total_ms: float


@dataclass(frozen=True)
class ToolCall:
    """A call that an answer makes: the tool's name, its arguments, and an id that the tool's result refers to."""

    name: str
    arguments: Mapping[str, Any]
    id: str


@dataclass(frozen=True)
class Answer:
    """An answer, the turns its memory came from, its cost, and the tools it calls."""

    text: str
    evidence: Sequence[Evidence]
    usage: Usage
    tool_calls: Sequence[ToolCall] = ()
    finish_reason: FinishReason = "stop"
