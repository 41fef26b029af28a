"""How remembered turns are written into a prompt for models that read text, and how they are taken out again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from lpm_core.exceptions import ModelError

if TYPE_CHECKING:
    from lpm_core.engine import LPM
    from lpm_integrations.chroma.retrieval import ChromaRetrieval

__all__ = ["SOFT_ONLY", "format_evidence", "recalled_lines", "retrieved_lines", "strip_evidence", "unfold_transcript", "without_soft_tokens"]

SOFT_ONLY = "[what the user said before is given as soft tokens]"
"""Stands for a memory that gives no text (recall="soft"), so that a model without soft tokens is noticed."""

_BEGIN, _END = "[what the user said before]", "[end of what the user said before]"
_BLOCK = re.compile(rf"(?:{re.escape(_BEGIN)}.*?{re.escape(_END)}|{re.escape(SOFT_ONLY)})\n?", re.DOTALL)
_MARKS = re.compile("|".join(map(re.escape, (_BEGIN, _END, SOFT_ONLY))))
_MOST = 5  # turns of memory beside those of the window
_LINE = re.compile(r"^(Human|AI): ?", re.MULTILINE)


def format_evidence(lines: Sequence[str]) -> str:
    """Remembered turns as a block of text; empty if there are none. A marker inside a turn is made harmless."""
    safe = [_MARKS.sub("(…)", line) for line in lines]
    return "\n".join([_BEGIN, *(f"- {line}" for line in safe), _END]) if safe else ""


def recalled_lines(engine: LPM, user_id: str, query: str, shown: frozenset[str]) -> list[str]:
    """The turns that the read attention points to, best first, five at most beside those that are `shown` already; with the dates of relative times."""
    found = engine.recall(user_id, query, k=_MOST + len(shown)).evidence
    return [item.turn.dated for item in found if item.turn.content not in shown][:_MOST]


def retrieved_lines(retrieval: ChromaRetrieval, user_id: str, query: str, shown: frozenset[str], k: int, score_threshold: float | None) -> list[str]:
    """The `k` texts nearest to the query that are not `shown` already."""
    hits = retrieval.search(user_id, query, k=k + len(shown), score_threshold=score_threshold)
    return [hit.text for hit in hits if hit.text not in shown][:k]


def strip_evidence(text: str) -> str:
    """The text without blocks of `format_evidence` and SOFT_ONLY: for models that read the soft tokens instead."""
    return _BLOCK.sub("", text)


def without_soft_tokens(model: str, method: str) -> ModelError:
    """What to raise where a prompt holds SOFT_ONLY and its model takes no soft tokens. `method` of a memory builds one that does."""
    return ModelError(
        f"recall='soft' gives soft tokens alone, and the model {model!r} takes none; use recall='auto' or 'text', or the model that {method}() gives"
    )


def unfold_transcript(text: str) -> list[tuple[str, str]] | None:
    """A prompt that holds a whole conversation as `Human:`/`AI:` lines, as messages; None if it is not one.

    What stands before the first line becomes a system message. Chains of langchain-classic write such prompts.
    """
    marks = list(_LINE.finditer(text))
    if not marks or marks[-1][1] != "AI" or text[marks[-1].end() :].strip() or len(marks) < 2 or marks[-2][1] != "Human":
        return None
    messages: list[tuple[str, str]] = []
    head = text[: marks[0].start()].strip()
    if head:
        messages.append(("system", head))
    for mark, after in pairwise(marks):
        content = text[mark.end() : after.start()].strip()
        if content:
            messages.append(("user" if mark[1] == "Human" else "assistant", content))
    return messages if messages and messages[-1][0] == "user" else None
