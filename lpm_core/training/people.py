"""What a corpus is made of: kinds of facts, tools, questions and people, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from lpm_core.dates import resolve
from lpm_core.training.dialogues import Message

__all__ = ["UNKNOWN", "FactType", "Person", "Question", "Tool"]

UNKNOWN = "I don't know."
"""The answer to a question about what was never told."""


@dataclass(frozen=True)
class FactType:
    """One kind of fact, with the wordings that one split may use."""

    key: str
    pool: str
    says: tuple[str, ...]
    asks: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """A tool that needs one fact about the user, with the requests that one split may use."""

    name: str
    description: str
    fact: str
    parameter: str
    about: str
    requests: tuple[str, ...]
    direct: tuple[str, ...]
    field: str
    results: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as a prompt shows it."""
        parameters = {"type": "object", "properties": {self.parameter: {"type": "string", "description": self.about}}, "required": [self.parameter]}
        return {"type": "function", "function": {"name": self.name, "description": self.description, "parameters": parameters}}


@dataclass(frozen=True)
class Question:
    """What a person asks later. `evidence` is the index of the turn that holds the answer; None: never told.

    `kind` "update" asks for the latest of two values that were told, "earlier" for the one before it, "story" for what
    was told in passing, "joined" for what two turns tell together; `evidence` is the one with the answer, and `through` the other
    and the words in it that lead there. "dated" asks when something was done that was told with a time like "yesterday". "preference" is a request that does not name the fact that matters, `told`: the answer is the reply that
    makes use of it, one of the `options`.
    With a `tool` the answer is a call of it; then comes the tool's `result`, and the assistant's `reply`. The call's
    value may stand in the question itself: then `evidence` is None and the answer is not UNKNOWN.
    """

    text: str
    answer: str
    key: str
    evidence: int | None
    open_vocabulary: bool = False
    kind: Literal["single", "update", "earlier", "story", "joined", "dated", "preference"] = "single"
    tool: Tool | None = None
    result: str = ""
    reply: str = ""
    through: tuple[int, str] | None = None
    options: tuple[str, ...] = ()
    told: str = ""

    @property
    def value(self) -> str:
        """What is to be remembered: the answer, what it makes use of, or the argument of the call that it is."""
        return self.told or self.answer if self.tool is None else str(json.loads(self.answer)["arguments"][self.tool.parameter])


@dataclass(frozen=True)
class Person:
    """A user: turns in order, the session each belongs to, questions about them, the tools at hand, and when each session was."""

    turns: tuple[Message, ...]
    sessions: tuple[int, ...]
    questions: tuple[Question, ...]
    tools: tuple[Tool, ...] = ()
    times: tuple[datetime, ...] = ()

    @property
    def dated(self) -> tuple[Message, ...]:
        """The turns as they are remembered: with the dates of relative times."""
        if not self.times:
            return self.turns
        return tuple((role, resolve(text, self.times[session])) for (role, text), session in zip(self.turns, self.sessions, strict=True))
