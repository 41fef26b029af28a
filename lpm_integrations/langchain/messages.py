"""LangChain messages as the engine's, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from lpm_core.exceptions import InvalidInputError

__all__ = ["as_message", "from_langchain", "text_of"]

_ROLES: dict[type[BaseMessage], str] = {HumanMessage: "user", AIMessage: "assistant", SystemMessage: "system", ToolMessage: "tool"}


def text_of(message: BaseMessage) -> str:
    """The text of a message. Raises InvalidInputError for images and other parts that are not text."""
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if isinstance(part, dict) and part.get("type") not in ("text", "thinking", "reasoning", "tool_use", "tool_call"):
            raise InvalidInputError(f"a message holds a part of type {part.get('type')!r}; this model and its memory read text only")
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in message.content)


def from_langchain(message: BaseMessage) -> dict[str, Any]:
    """A LangChain message as {"role", "content", …} of the chat format."""
    role = next((role for kind, role in _ROLES.items() if isinstance(message, kind)), None)
    if role is None:
        if not isinstance(message, ChatMessage):
            raise InvalidInputError(f"a message of type {type(message).__name__} has no place in the chat format; use Human, AI, System or Tool messages")
        role = message.role
    converted: dict[str, Any] = {"role": role, "content": text_of(message)}
    if isinstance(message, AIMessage) and message.tool_calls:
        converted["tool_calls"] = [{"type": "function", "function": {"name": call["name"], "arguments": call["args"]}} for call in message.tool_calls]
    return converted


def as_message(role: str, content: str) -> BaseMessage:
    """A turn of the log as a LangChain message."""
    return HumanMessage(content) if role == "user" else SystemMessage(content) if role == "system" else AIMessage(content)


def to_turns(messages: Sequence[BaseMessage]) -> list[dict[str, str]]:
    """Messages worth remembering: what user and assistant said, without tool traffic and empty messages."""
    converted = [from_langchain(message) for message in messages if isinstance(message, HumanMessage | AIMessage)]
    return [{"role": row["role"], "content": row["content"]} for row in converted if row["content"].strip()]
