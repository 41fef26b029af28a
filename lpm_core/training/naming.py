"""Conversations of two people by name, as transcripts have them: each line tells who speaks, and questions ask about the first of them by name."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from lpm_core.training.people import UNKNOWN, Person, Question

__all__ = ["about", "as_transcript"]

_OTHERS = 0.12  # of the questions ask of the other speaker what only the first has told

_WE = r"(?:I|we)"
_RULES: tuple[tuple[str, str], ...] = (
    (rf"\b(d)o {_WE}\b", r"\1oes {n}"),
    (rf"\b(?:am|are) {_WE}\b", "is {n}"),
    (rf"\b(did|will|can|should|would) {_WE}\b", r"\1 {n}"),
    (rf"\bhave {_WE}\b", "has {n}"),
    (rf"\b(d)on't {_WE}\b", r"\1oesn't {n}"),
    (r"\b(?:I'm|I am|we're|we are)\b", "{n} is"),
    (r"\b(?:I've|I have|we've|we have)\b", "{n} has"),
    (r"\b(?:I'd|we'd)\b", "{n} would"),
    (r"\b(?:I'll|we'll)\b", "{n} will"),
    (rf"\b{_WE}\b", "{n}"),
    (r"\b(?:my|mine|our|ours)\b", "{n}'s"),
    (r"(?<!tell )(?<!remind )\b(?:me|myself|us)\b", "{n}"),
)


def about(question: str, name: str) -> str:
    """A question in the first person as one about somebody by name: "Where do I work?", "Where does Ana work?"."""
    for rule, form in _RULES:
        question = re.sub(rule, form, question, flags=re.IGNORECASE)
    return re.sub(r"^[a-z]", lambda first: first[0].upper(), question.replace("{n}", name))


def as_transcript(person: Person, names: tuple[str, str], rng: random.Random) -> Person:
    """The same person with the speakers' names before what they say, asked about by name; some questions ask the same of the other, who told nothing."""
    speaker = dict(zip(("user", "assistant"), names, strict=True))

    def asked(question: Question) -> Question:
        text = about(question.text, names[0])
        other = about(question.text, names[1])
        if other != text and question.key != "heard" and rng.random() < _OTHERS:
            return Question(other, UNKNOWN, f"{question.key} of {names[1]}", None)
        return replace(question, text=text)

    turns = tuple((role, f"{speaker[role]}: {text}") for role, text in person.turns)
    return replace(person, turns=turns, questions=tuple(map(asked, person.questions)))
