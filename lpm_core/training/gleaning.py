"""Questions about what people really said: a part of a sentence is left out, and what is left asks for it.

A corpus of wordings that somebody wrote teaches these wordings. Human dialogue holds far more of them, and most sentences
ask for one of their parts once it is replaced by a question word, or once only some of their words are left.
"""

from __future__ import annotations

import random
import re

__all__ = ["glean"]

_SENTENCE = re.compile(r"[^.?!]+[.!]?")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w']*(?: (?:of |the )?[A-Z][\w']*)*")
_NUMBER = re.compile(
    r"\d+(?::\d\d)?(?: ?[ap]m)?|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b(?: (?:o'clock|people|years|days|weeks|tickets))?"
)
_PHRASE = re.compile(
    r"\b(?:a|an|the|my|his|her|their|some|in|at|with|to|of|about|from|like|love|watch|watched|saw|is|was) ((?:[a-z]+ ){0,2}[a-z]{4,})(?=[,.!]| (?:and|in|on|at|with|for|from|because|that|to|when|but|so|this|last)\b)"
)
_PLAIN = frozenset(
    """i i'm i'd i've me my we our you your he she it its they them his her their this that these those there here the a an and or but so because if
    when while as of in on at to for from with by about is are was were be been am do does did have has had will would can could should not no yes
    just really very much more most too also then than like well oh yeah okay ok please thanks""".split()  # noqa: SIM905
)


def _asked_with(part: str, rng: random.Random) -> str:
    """The question word for a part of a sentence."""
    if re.fullmatch(r"[\d:]+ ?[ap]m|.*o'clock", part):
        return rng.choice(("when", "what time", "at what time"))
    if _NUMBER.match(part):
        return rng.choice(("how many", "what number", "how much"))
    return rng.choice(("who", "what", "which", "where") if part[0].isupper() else ("what", "what", "which"))


def glean(text: str, rng: random.Random) -> tuple[str, str] | None:
    """A question about a message and its answer, a part of the message that occurs in it once; None if no part is fit for it."""
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(text)]
    sentences = [sentence for sentence in sentences if 5 <= len(sentence.split()) <= 24]
    if not sentences:
        return None
    sentence = rng.choice(sentences)
    parts = [match[match.re.groups] for pattern in (_NAME, _NUMBER, _PHRASE) for match in pattern.finditer(sentence)]
    parts = [part for part in parts if not set(part.lower().split()) <= _PLAIN and text.lower().count(part.lower()) == 1]
    if not parts:
        return None
    part = rng.choice(parts)
    before, _, after = sentence.partition(part)
    asked = _asked_with(part, rng)
    before = re.sub(r"\b(?:a|an|the)\s*$", "", before)
    draw = rng.random()
    if draw < 0.3:  # all words in their order, the question word in the part's place
        question = f"{before.strip()} {asked} {after.strip(' ,.!')}"
    else:  # the question word, then some of the words
        words = re.findall(r"[\w']+", f"{before} {after}")
        telling = [word for word in words if word.lower() not in _PLAIN]
        if not telling:
            return None
        kept = set(rng.sample(telling, max(1, round(len(telling) * rng.uniform(0.4, 1.0)))))
        words = [word for word in words if word in kept or (word.lower() in _PLAIN and rng.random() < (0.6 if draw < 0.8 else 0.0))]
        if draw >= 0.8:
            rng.shuffle(words)
        question = " ".join([asked, *words])
    question = question.strip()
    return f"{question[0].upper()}{question[1:]}?", part
