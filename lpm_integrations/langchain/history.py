"""The turn log of one user and session as a LangChain chat history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from lpm_core.engine import LPM
from lpm_integrations.langchain.messages import as_message, to_turns

__all__ = ["LPMChatMessageHistory"]


class LPMChatMessageHistory(BaseChatMessageHistory):
    """Messages of one session, kept in the engine's turn log and written into the user's slots.

    `window` (None: all) is how many of the latest messages `messages` gives; older ones live on in the slots.
    """

    def __init__(self, engine: LPM, user_id: str = "default", session_id: str = "default", window: int | None = None) -> None:
        self.engine, self.user_id, self.session_id, self.window = engine, user_id, session_id, window

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The session's latest messages, in order."""
        turns = [turn for turn in self.engine.turns(self.user_id, session_id=self.session_id) if turn.role != "tool"]
        kept = turns if self.window is None else turns[len(turns) - min(self.window, len(turns)) :]
        return [as_message(turn.role, turn.content) for turn in kept]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Remember what user and assistant said; durable when it returns."""
        turns = to_turns(messages)
        if turns:
            self.engine.remember(self.user_id, turns, session_id=self.session_id)

    def clear(self) -> None:
        """Forget this session of this user, and nothing else."""
        turns = self.engine.turns(self.user_id, session_id=self.session_id)
        if turns:
            self.engine.forget(self.user_id, turn_ids=[turn.id for turn in turns])

    async def aget_messages(self) -> list[BaseMessage]:
        """`messages` without blocking the event loop."""
        return await asyncio.to_thread(lambda: self.messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """`add_messages` without blocking the event loop."""
        await asyncio.to_thread(self.add_messages, messages)

    async def aclear(self) -> None:
        """`clear` without blocking the event loop."""
        await asyncio.to_thread(self.clear)
