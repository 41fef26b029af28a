"""LlamaIndex messages as the engine's, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import CachePoint, ChatMessage, MessageRole, TextBlock, ThinkingBlock, ToolCallBlock

from lpm_core.exceptions import InvalidInputError
from lpm_integrations.evidence import format_evidence, strip_evidence
from lpm_integrations.marker import MARKER

__all__ = [
    "StoredTurn",
    "as_message",
    "calls_tools",
    "from_llama_index",
    "is_memory",
    "last_question",
    "memory_message",
    "recognise",
    "role_of",
    "spoken",
    "text_of",
]

_ROLES = {
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.DEVELOPER: "system",
    MessageRole.FUNCTION: "tool",
}
_REASONED = re.compile(r"(?:Thought|Observation):.*\nAnswer:(.*)", re.DOTALL)


class StoredTurn(NamedTuple):
    """A turn as a memory's store keeps it."""

    id: str
    role: str
    content: str


def role_of(message: ChatMessage) -> str:
    """The role of the chat format: user, assistant, system or tool."""
    return _ROLES.get(message.role, message.role.value)


def text_of(message: ChatMessage) -> str:
    """The text of a message, without images, tool calls and thoughts."""
    return message.content or ""


def calls_tools(message: ChatMessage) -> bool:
    """Whether a message of the assistant asks for tools instead of answering."""
    return any(isinstance(block, ToolCallBlock) for block in message.blocks) or bool(message.additional_kwargs.get("tool_calls"))


def spoken(message: ChatMessage) -> str:
    """What user or assistant said to each other in this message; empty for tool traffic and instructions.

    Of the reasoning that a ReActAgent puts into memory only the answer counts.
    """
    role = role_of(message)
    if role == "user":
        return text_of(message)
    if role != "assistant" or calls_tools(message):
        return ""
    reasoned = _REASONED.fullmatch(text_of(message))
    return reasoned[1].strip() if reasoned else text_of(message)


def last_question(messages: Sequence[ChatMessage]) -> str:
    """The last thing the user said, which memory is read for; empty if there is none."""
    return next((text for message in reversed(messages) if role_of(message) == "user" and (text := text_of(message).strip())), "")


def memory_message(lines: Sequence[str], marked: dict[str, Any], instead: str = "") -> list[ChatMessage]:
    """The system message that stands for the memory: remembered turns as text (`instead` without any), and the marker; none without either."""
    known = format_evidence(list(dict.fromkeys(lines))) or instead
    return [ChatMessage(known, role=MessageRole.SYSTEM, additional_kwargs=marked)] if known or marked else []


def is_memory(message: ChatMessage) -> bool:
    """Whether a message was written by `memory_message`."""
    text = text_of(message)
    return role_of(message) == "system" and not strip_evidence(text).strip() and (bool(text) or MARKER in message.additional_kwargs)


def as_message(turn: StoredTurn) -> ChatMessage:
    """A stored turn as a LlamaIndex message."""
    return ChatMessage(turn.content, role=MessageRole(turn.role))


def recognise(turns: Sequence[tuple[str, str]], stored: Sequence[StoredTurn]) -> list[str | None]:
    """For each (role, text) the id of the stored turn that it is, None for a new one. No stored turn stands for two."""
    free: dict[tuple[str, str], list[str]] = {}
    for turn in reversed(stored):
        free.setdefault((turn.role, turn.content.strip()), []).append(turn.id)
    return [ids.pop() if (ids := free.get((role, text.strip()))) else None for role, text in turns]


def from_llama_index(message: ChatMessage) -> dict[str, Any]:
    """A LlamaIndex message as {"role", "content", …} of the chat format. Raises InvalidInputError for images and the like."""
    calls = []
    for block in message.blocks:
        if isinstance(block, ToolCallBlock):
            calls.append({"type": "function", "function": {"name": block.tool_name, "arguments": _arguments(block.tool_kwargs)}})
        elif not isinstance(block, TextBlock | ThinkingBlock | CachePoint):
            raise InvalidInputError(f"a message holds a block of type {block.block_type!r}; this model reads text only: leave the block out")
    role, content = role_of(message), text_of(message)
    converted: dict[str, Any] = {"role": role, "content": "(no output)" if role == "tool" and not content.strip() else content}
    return converted | {"tool_calls": calls} if calls else converted


def _arguments(given: dict[str, Any] | str) -> Any:
    """Arguments of a call as JSON values; some LLMs write them as a string."""
    if isinstance(given, dict):
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given
