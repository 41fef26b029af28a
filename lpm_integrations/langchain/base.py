"""What LPM and RAG memory have in common as LangChain memories: keys, window, evidence, sync and async."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_classic.memory.chat_memory import BaseChatMemory
from langchain_core.messages import BaseMessage, SystemMessage, get_buffer_string
from pydantic import Field

from lpm_core.exceptions import InvalidInputError
from lpm_integrations.evidence import format_evidence
from lpm_integrations.langchain.messages import text_of

__all__ = ["PersonalMemory"]


class PersonalMemory(BaseChatMemory):
    """A user's memory across sessions behind a short verbatim window of the current one.

    `load_memory_variables` gives one variable, `memory_key`: what is known that fits the input, then the last `window`
    messages; as text, or as messages with `return_messages`.
    """

    user_id: str = "default"
    session_id: str = "default"
    window: int = Field(4, ge=0)
    memory_key: str = "history"
    human_prefix: str = "Human"
    ai_prefix: str = "AI"

    @abstractmethod
    def _evidence(self, query: str, shown: frozenset[str]) -> list[str]:
        """Remembered turns that fit the query and are not `shown`, best first, as lines of text."""

    def _as_text(self, lines: Sequence[str]) -> str:
        """What a model that reads text sees of this memory."""
        return format_evidence(lines)

    def _marker(self) -> dict[str, Any]:
        """`additional_kwargs` of the message that stands for the memory."""
        return {}

    @property
    def memory_variables(self) -> list[str]:
        """The one variable that this memory fills."""
        return [self.memory_key]

    def load_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What is remembered for these inputs, and the window."""
        recent: list[BaseMessage] = self.chat_memory.messages[-self.window :] if self.window else []
        recalled = self.recalled(self._query(inputs), recent)
        if self.return_messages:
            return {self.memory_key: [*([recalled] if recalled else []), *recent]}
        window = get_buffer_string(recent, human_prefix=self.human_prefix, ai_prefix=self.ai_prefix)
        return {self.memory_key: "\n".join(part for part in (text_of(recalled) if recalled else "", window) if part)}

    def recalled(self, query: str, shown: Sequence[BaseMessage], *, text: bool = True) -> SystemMessage | None:
        """The message that stands for the memory: what fits the query and is not shown already. `text` False: its marker alone."""
        seen = frozenset(text_of(message) for message in shown)
        known = self._as_text(self._evidence(query, seen) if query else []) if text else ""
        marked = self._marker()
        return SystemMessage(known, additional_kwargs=marked) if known or marked else None

    @property
    def needs_text(self) -> bool:
        """Whether even a model with soft tokens can read this memory as text only."""
        return not self._marker()

    def save_context(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Remember one exchange. Both turns are on disk when this returns."""
        said, answered = self._get_input_output(inputs, outputs)
        self.chat_memory.add_messages([message for message in self._exchange(said, answered) if text_of(message).strip()])

    @staticmethod
    def _exchange(said: Any, answered: Any) -> list[BaseMessage]:
        from langchain_core.messages import AIMessage, HumanMessage

        rows: list[BaseMessage] = []
        for value, kind in ((said, HumanMessage), (answered, AIMessage)):
            value = value[-1] if isinstance(value, list) and value else value
            text = text_of(value) if isinstance(value, BaseMessage) else value
            if not isinstance(text, str):
                raise InvalidInputError(f"an exchange holds {type(text).__name__}, not text; set input_key and output_key to the keys that hold text")
            rows.append(kind(text))
        return rows

    def _query(self, inputs: dict[str, Any]) -> str:
        keys = (
            [self.input_key]
            if self.input_key
            else [key for key in inputs if key not in (*self.memory_variables, "stop", "agent_scratchpad", "intermediate_steps")]
        )
        value = inputs.get(keys[0]) if len(keys) == 1 else inputs.get("input")
        value = value[-1] if isinstance(value, list) and value else value
        return text_of(value) if isinstance(value, BaseMessage) else value if isinstance(value, str) else ""

    def clear(self) -> None:
        """Forget the current session of this user, and nothing else."""
        self.chat_memory.clear()

    async def aload_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """`load_memory_variables` without blocking the event loop."""
        return await asyncio.to_thread(self.load_memory_variables, inputs)

    async def asave_context(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """`save_context` without blocking the event loop."""
        await asyncio.to_thread(self.save_context, inputs, outputs)

    async def aclear(self) -> None:
        """`clear` without blocking the event loop."""
        await asyncio.to_thread(self.clear)
