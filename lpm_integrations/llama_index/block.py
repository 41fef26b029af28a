"""LPMMemoryBlock: latent personal memory inside LlamaIndex's own Memory, and a Memory that hands it every turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import BaseMemoryBlock, Memory
from llama_index.core.storage.chat_store.base_db import MessageStatus
from pydantic import model_validator

from lpm_core.engine import LPM
from lpm_core.validation import check_user_id
from lpm_integrations.llama_index.engine import Remembering
from lpm_integrations.llama_index.messages import is_memory, last_question, memory_message, recognise, role_of, spoken, text_of

__all__ = ["EveryTurnMemory", "LPMMemoryBlock"]


class LPMMemoryBlock(Remembering, BaseMemoryBlock[list[ChatMessage]]):
    """A person's whole history as a block of LlamaIndex's Memory. Arguments as in LPMMemory.

    A plain `Memory` gives its blocks only the messages that overflow its short-term queue, so an ordinary chat would
    leave nothing behind. Use the block in an EveryTurnMemory, which gives it every turn, once:

        memory = EveryTurnMemory.from_defaults(memory_blocks=[LPMMemoryBlock("ann")])
    """

    name: str = "lpm"

    def __init__(self, user_id: str = "default", *, engine: LPM | None = None, **fields: Any) -> None:
        check_user_id(user_id)
        check_user_id(fields.get("session_id", "default"), "session id")
        super().__init__(**fields | {"user_id": user_id})
        self._hold(engine)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> list[ChatMessage]:  # noqa: ARG002 (the base class's signature)
        return await asyncio.to_thread(self._recall, messages or [])

    def _recall(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        query = last_question(messages)
        lines = self._evidence(query, frozenset(text_of(message) for message in messages)) if query else []
        return memory_message(lines, self._marker(), self._placeholder())

    async def _aput(self, messages: list[ChatMessage]) -> None:
        sessions: dict[str, list[ChatMessage]] = {}
        for message in messages:
            sessions.setdefault(str(message.additional_kwargs.get("session_id", self.session_id)), []).append(message)
        for session_id, part in sessions.items():
            await self.asave(part, session_id)

    async def asave(self, messages: Sequence[ChatMessage], session_id: str, *, again: bool = False) -> None:
        """Store what user and assistant say in these messages; with `again`, only what the session does not hold."""
        await asyncio.to_thread(self._save, messages, session_id, again)

    def _save(self, messages: Sequence[ChatMessage], session_id: str, again: bool) -> None:
        said = [(role_of(message), text) for message in messages if not is_memory(message) and (text := spoken(message)).strip()]
        ids = recognise(said, self._stored(session_id) if again else ())
        new = [turn for turn, name in zip(said, ids, strict=True) if name is None]
        if new:
            self._remember_in(session_id, new)

    async def aforget(self, session_id: str) -> None:
        """Forget one session of this user, and nothing else."""
        turns = await asyncio.to_thread(self._stored, session_id)
        if turns:
            await asyncio.to_thread(self._forget, turns)


class EveryTurnMemory(Memory):
    """LlamaIndex's Memory that gives each turn to its LPMMemoryBlocks when it is put, and not again when it overflows.

    `reset` also forgets the session in the blocks, and nothing else; `set` stores what the session does not hold yet.
    """

    @model_validator(mode="after")
    def _take_no_overflow(self) -> Self:
        for block in self._blocks():
            block.accept_short_term_memory = False
        return self

    def _blocks(self) -> list[LPMMemoryBlock]:
        return [block for block in self.memory_blocks if isinstance(block, LPMMemoryBlock)]

    async def _save(self, messages: Sequence[ChatMessage], *, again: bool = False) -> None:
        for block in self._blocks():
            await block.asave(messages, self.session_id, again=again)

    async def aput(self, message: ChatMessage) -> None:
        """Take one message; what the user or the assistant says in it is on disk when this returns."""
        await self._save([message])
        await super().aput(message)

    async def aput_messages(self, messages: list[ChatMessage]) -> None:
        """Take messages; what the user or the assistant says in them is on disk when this returns."""
        await self._save(messages)
        await super().aput_messages(messages)

    async def aset(self, messages: list[ChatMessage]) -> None:
        """Make these messages the short-term queue; nothing is forgotten, and nothing stored twice."""
        await self._save(messages, again=True)
        await super().aset(messages)

    async def areset(self, status: MessageStatus | None = None) -> None:
        """Forget the current session of this user, and nothing else. With a status: only those messages of the queue."""
        if status is None:
            for block in self._blocks():
                await block.aforget(self.session_id)
        await super().areset(status)
