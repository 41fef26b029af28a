"""What LPM and RAG memory have in common as LlamaIndex memories: window, evidence, turns stored once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import BaseMemory
from pydantic import Field, PrivateAttr, field_serializer

from lpm_integrations.llama_index.messages import StoredTurn, as_message, is_memory, last_question, memory_message, recognise, role_of, spoken, text_of

__all__ = ["PersonalMemory"]


class PersonalMemory(BaseMemory):
    """A user's memory across sessions behind a short verbatim window of the current one.

    `get` gives a system message with what is known that fits the question, then the last `window` messages of the
    session. What user and assistant say is stored as it is put; tool traffic is shown until its turn is answered, and
    never stored. The fields below `window` are the state of the turn in progress: they travel in `Context.to_dict`.

    A ReActAgent without a `system_prompt` drops the first system message it gets, so give it one: with it, the message
    of the memory stays.
    """

    user_id: str = "default"
    session_id: str = "default"
    window: int = Field(4, ge=0)
    instructions: list[ChatMessage] = Field(default_factory=list)
    in_progress: list[ChatMessage] = Field(default_factory=list)
    in_progress_turn: str | None = None
    conversation: list[str] | None = None
    _recalled: tuple[Hashable, list[str]] | None = PrivateAttr(None)

    @abstractmethod
    def _evidence(self, query: str, shown: frozenset[str]) -> list[str]:
        """Remembered turns that fit the query and are not shown already, best first, as lines of text."""

    @abstractmethod
    def _history(self) -> tuple[Hashable, list[StoredTurn]]:
        """The version of the user's history, and the turns of this session."""

    @abstractmethod
    def _remember(self, turns: Sequence[tuple[str, str]]) -> list[str]:
        """Store (role, text) turns of this session and return their ids; durable when it returns."""

    @abstractmethod
    def _forget(self, turns: Sequence[StoredTurn]) -> None:
        """Delete stored turns."""

    def _marker(self) -> dict[str, Any]:
        """`additional_kwargs` of the message that stands for the memory."""
        return {}

    def _placeholder(self) -> str:
        """What the message says where no text is known."""
        return ""

    @classmethod
    def class_name(cls) -> str:
        """The class's own name."""
        return cls.__name__

    @classmethod
    def from_defaults(cls, chat_history: list[ChatMessage] | None = None, **fields: Any) -> Self:
        """The memory with these constructor arguments; `chat_history` is what was said so far.

        The `llm` and `token_limit` that chat engines pass are not needed: the window counts messages.
        """
        memory = cls(**{name: value for name, value in fields.items() if name not in ("llm", "token_limit")})
        if chat_history:
            memory.set(chat_history)
        return memory

    def get(self, input: str | None = None, **kwargs: Any) -> list[ChatMessage]:  # noqa: A002, ARG002 (the base class's signature)
        """What is remembered for `input` (None: for the user's last message), and the window. Changes nothing."""
        version, turns = self._read()
        recent = self._window(turns)
        query = (input or "").strip() or last_question([*map(as_message, turns), *self.in_progress])
        return [*memory_message(self._recall(query, version, recent), self._marker(), self._placeholder()), *_copies(self.instructions), *recent]

    def _recall(self, query: str, version: Hashable, recent: Sequence[ChatMessage]) -> list[str]:
        """Evidence for the query; agents ask two or three times a turn, so the last answer is kept."""
        if not query:
            return []
        shown = frozenset(text_of(message) for message in recent)
        key = (query, version, shown)
        kept = self._recalled
        if kept is None or kept[0] != key:
            kept = self._recalled = (key, self._evidence(query, shown))
        return kept[1]

    def _read(self) -> tuple[Hashable, list[StoredTurn]]:
        """The version of the history, and the turns of the conversation so far."""
        version, turns = self._history()
        if self.conversation is None:
            return version, turns
        by_id = {turn.id: turn for turn in turns}
        return version, [by_id[name] for name in self.conversation if name in by_id]

    def _window(self, turns: Sequence[StoredTurn]) -> list[ChatMessage]:
        """The last `window` messages. A turn in progress is shown whole, with the calls and results of its tools."""
        earlier = [turn for turn in turns if turn.id != self.in_progress_turn]
        room = max(0, self.window - (1 if self.in_progress else 0))
        return [*map(as_message, earlier[max(0, len(earlier) - room) :]), *_copies(self.in_progress)]

    def get_all(self) -> list[ChatMessage]:
        """All messages of the conversation so far, without what memory adds."""
        _, turns = self._read()
        earlier = [as_message(turn) for turn in turns if turn.id != self.in_progress_turn]
        return [*_copies(self.instructions), *earlier, *_copies(self.in_progress)]

    def put(self, message: ChatMessage) -> None:
        """Take one message; what the user or the assistant says in it is on disk when this returns."""
        self.put_messages([message])

    def put_messages(self, messages: list[ChatMessage]) -> None:
        """Take messages; what the user or the assistant says in them is on disk when this returns."""
        self._take(messages, [])

    def set(self, messages: list[ChatMessage]) -> None:
        """Make these messages the conversation so far.

        Those that the session holds already are not stored again, and nothing is forgotten: only `reset` does that.
        """
        _, stored = self._history()
        self._take(messages, stored, restart=True)

    def _take(self, messages: Iterable[ChatMessage], stored: Sequence[StoredTurn], *, restart: bool = False) -> None:
        taken = [message for message in messages if not is_memory(message)]
        said = [(role_of(message), text) for message in taken if (text := spoken(message)).strip()]
        ids = recognise(said, stored)
        new = [turn for turn, name in zip(said, ids, strict=True) if name is None]
        fresh = iter(self._remember(new) if new else ())
        if restart:
            self.instructions, self.in_progress, self.in_progress_turn, self.conversation = [], [], None, []
        names = iter([name or next(fresh) for name in ids])
        for message in taken:
            turn = next(names) if spoken(message).strip() else None
            if turn is not None and self.conversation is not None:
                self.conversation.append(turn)
            self._follow(message, turn)

    def _follow(self, message: ChatMessage, turn: str | None) -> None:
        """Keep up with the turn in progress: from a user's message to the answer."""
        role = role_of(message)
        if role == "system":
            self.instructions += _copies([message])
        elif role == "user":
            self.in_progress, self.in_progress_turn = _copies([message]), turn
        elif turn is not None:
            self.in_progress, self.in_progress_turn = [], None
        elif self.in_progress:
            self.in_progress += _copies([message])

    def reset(self) -> None:
        """Forget the current session of this user, and nothing else."""
        _, turns = self._history()
        if turns:
            self._forget(turns)
        self.instructions, self.in_progress, self.in_progress_turn, self.conversation = [], [], None, None

    @field_serializer("instructions", "in_progress")
    def _plain(self, messages: list[ChatMessage]) -> list[dict[str, Any]]:
        return [message.model_dump(mode="json") for message in messages]


def _copies(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """Messages of their own: agents write into those they get."""
    return [message.model_copy(deep=True) for message in messages]
