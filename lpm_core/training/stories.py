"""Facts told in passing: short stories in many voices, with blanks for what they tell, and questions about it.

stories.txt holds one story a block: a `T` line is a message, `{a:pool}` in it a blank that is filled with a value of the
pool (values.toml), or of a list, `{a:=red/green/blue}`; `{~:pool}` tells of somebody or something else, and nobody
asks for it. A `Q` line is a question and, after a bar, the blank that answers it; an `N` line one that the story sounds as if it answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["Story", "read_stories"]

_BLANK = re.compile(r"\{(\w+|~)(?::([^}]*))?\}")


@dataclass(frozen=True)
class Story:
    """Messages with blanks `{a}`, the pool of each blank (or `=` and its choices), questions with the blank that answers each, and questions that none does."""

    turns: tuple[str, ...]
    blanks: Mapping[str, str]
    asks: tuple[tuple[str, str], ...]
    untold: tuple[str, ...] = ()

    @property
    def asked_pools(self) -> frozenset[str]:
        """Kinds of values that it is asked for: another fact of such a kind might answer the same question."""
        return frozenset(self.blanks[blank] for _, blank in self.asks)

    def told(self, value: Callable[[str], str]) -> list[tuple[str, list[str]]]:
        """Each message with its blanks filled by `value(blank)`, and the blanks that it names first."""
        seen: set[str] = set()
        parts = []
        for turn in self.turns:
            first = list(dict.fromkeys(name for name, _ in _BLANK.findall(turn) if name not in seen))
            seen.update(first)
            parts.append((_BLANK.sub(lambda match: value(match[1]), turn), first))
        return parts


def _story(block: str) -> Story:
    turns: list[str] = []
    asks: list[tuple[str, str]] = []
    untold: list[str] = []
    blanks: dict[str, str] = {}

    def blank(match: re.Match[str]) -> str:
        name = f"other{len(blanks)}" if match[1] == "~" else match[1]
        if match[2]:
            blanks[name] = match[2]
        return f"{{{name}}}"

    for line in block.splitlines():
        kind, text = line.split(" ", 1)
        if kind == "T":
            turns.append(_BLANK.sub(blank, text.strip()))
        elif kind == "N":
            untold.append(text.strip())
        else:
            question, name = text.rsplit("|", 1)
            asks.append((question.strip(), name.strip()))
    return Story(tuple(turns), blanks, tuple(asks), tuple(untold))


@cache
def read_stories() -> tuple[Story, ...]:
    """All stories, of every split."""
    text = resources.files(__package__).joinpath("stories.txt").read_text("utf-8")
    return tuple(_story(block) for block in text.strip().split("\n\n"))
