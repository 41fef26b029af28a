"""How a question is asked, and what streams back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Evidence, Usage
from lpm_core.validation import check_count, check_number

__all__ = ["AnswerStream", "AskOptions", "Options"]


class AskOptions(TypedDict, total=False):
    """Options of `ask` and `stream`.

    tools: JSON schemas of functions that the answer may call; what it calls fits their schemas. tool_choice: "auto",
    "none", "required", or the name of the one to call. seed: for temperature > 0. enable_thinking: let a model that
    was trained to think first do so; its thoughts are no part of the answer. stop: texts at which the answer ends;
    they are no part of it.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | None
    enable_thinking: bool
    stop: Sequence[str] | None


@dataclass(frozen=True)
class Options:
    """`AskOptions` with their defaults, checked."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str | None = None
    enable_thinking: bool = False
    stop: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_count(self.max_new_tokens, "max_new_tokens", 0)
        check_number(self.temperature, "temperature")
        check_number(self.top_p, "top_p", 1)
        if self.seed is not None:
            check_count(self.seed, "seed", 0)
        if isinstance(self.stop, str) or not all(isinstance(text, str) for text in self.stop or ()):
            raise InvalidInputError(f"stop={self.stop!r:.60}; pass a list of texts")


class AnswerStream(Iterator[str]):
    """Pieces of an answer as they come, the turns its memory came from, and its cost so far."""

    def __init__(self, pieces: Iterator[str], evidence: Sequence[Evidence], usage: Callable[[], Usage]) -> None:
        self._pieces, self.evidence, self._usage = pieces, evidence, usage

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def usage(self) -> Usage:
        """Tokens and time up to now."""
        return self._usage()
