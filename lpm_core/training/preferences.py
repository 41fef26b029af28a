"""Requests that only a remembered fact answers well, though they do not name it, and replies to choose from, much as in PersonaMem."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from lpm_core.training.people import Question
from lpm_core.training.splits import Split, data
from lpm_core.training.splits import wordings as split_wordings

__all__ = ["LETTERS", "preference", "with_options"]

LETTERS = "abcd"


def preference(key: str, values: Sequence[str], evidence: int, split: Split, rng: random.Random, *, is_open: bool) -> Question:
    """A request for which the fact `key` matters. Of its four replies one has the first of three `values`, the user's, two have the others', one has none."""
    row = data("preferences.toml")[key]
    requests, replies, misses = (split_wordings(row[kind], split) for kind in ("requests", "replies", "misses"))
    right, *others = (rng.choice(replies).replace("{v}", value) for value in values)
    options = [right, *others, rng.choice(misses)]
    rng.shuffle(options)
    return Question(rng.choice(requests), right, key, evidence, is_open, "preference", options=tuple(options), told=values[0])


def with_options(question: Question) -> Question:
    """The question with its replies in it, to be answered by a letter behind <final_answer>, as PersonaMem has it; the words around differ."""
    listed = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, question.options, strict=True))
    text = f"{question.text}\n\nWhich reply is the best for me? Give its letter after <final_answer>.\n{listed}"
    return replace(question, text=text, answer=f"<final_answer>({LETTERS[question.options.index(question.answer)]})")
