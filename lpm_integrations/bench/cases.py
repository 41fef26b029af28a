"""A benchmark as cases: a history, and questions about it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from lpm_core.dates import resolve
from lpm_core.exceptions import InvalidInputError
from lpm_core.training.corpus import Corpus
from lpm_core.training.people import UNKNOWN, Person, Question
from lpm_core.training.preferences import LETTERS
from lpm_core.validation import check_time
from lpm_integrations.bench.datasets.locomo import Conversation
from lpm_integrations.bench.datasets.personamem import QUESTION_TYPES, PersonaMem, PersonaQuestion

if TYPE_CHECKING:
    import random

    from lpm_core.chat import ChatFormat
    from lpm_core.engine import LPM

__all__ = [
    "ANSWERABLE",
    "MULTI_HOP",
    "NEVER_TOLD",
    "OPEN_DOMAIN",
    "SOME_DAY",
    "TEMPORAL",
    "UPDATE",
    "Case",
    "HistoryTurn",
    "TestQuestion",
    "history_of",
    "lengthened",
    "locomo_case",
    "personamem_cases",
    "preference_cases",
    "probe_cases",
    "probe_corpus",
    "tell",
]

MULTI_HOP, TEMPORAL, OPEN_DOMAIN, ANSWERABLE, NEVER_TOLD, UPDATE = 1, 2, 3, 4, 5, 6
"""Category ids of probes, those of LoCoMo: multi-hop, temporal, open-domain, single-hop and adversarial; and what changed."""

_CATEGORIES = {"joined": MULTI_HOP, "dated": TEMPORAL, "update": UPDATE, "earlier": UPDATE}


SOME_DAY = datetime(2024, 1, 1, 12, tzinfo=UTC)
"""When turns were said whose data set does not tell: the same day for every arm, and in every run."""


@dataclass(frozen=True)
class HistoryTurn:
    """One turn of a history, as a memory is told it. `key` is the data set's own id of the turn."""

    session_id: str
    role: str
    content: str
    key: str
    at: datetime = SOME_DAY

    @cached_property
    def dated(self) -> str:
        """The content with the dates of relative times, as memory writes it: what arms give as text knows no less."""
        return resolve(self.content, check_time(self.at))


@dataclass(frozen=True)
class TestQuestion:
    """A question, the answer that counts as right (None: nothing to compare with), and its category id.

    `options` are the answers to choose from, if there are any; `evidence` are keys of the turns that hold the answer.
    """

    id: str
    text: str
    gold: str | None
    category: int
    tags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One user: what they said, and what is asked."""

    user_id: str
    turns: tuple[HistoryTurn, ...]
    questions: tuple[TestQuestion, ...] = field(default=())


def probe_corpus(split: str) -> Corpus:
    """People that training never saw: "test", or "validation" to choose settings on. Raises InvalidInputError for another split."""
    if split not in ("test", "validation"):
        raise InvalidInputError(f"split {split!r} is neither test nor validation")
    return Corpus("test" if split == "test" else "validation")


def probe_cases(people: int, seed: int, facts: int = 8, questions: int = 8, split: str = "test", **told: float) -> Iterator[Case]:
    """Synthetic people of a split that training never saw: users, wordings and values are all new.

    told: a share `updates` of the facts changes later; of up to `joins` people who are told of by their names, something is asked by who they are;
    up to `stories` stories are told beside the facts, and `dates` events, which are asked for their dates. Raises InvalidInputError for another split than test and validation.
    """
    corpus = probe_corpus(split)
    for number, person in enumerate(corpus.people(seed, people, facts, questions=questions, **told)):
        turns = history_of(person)
        asked = tuple(
            TestQuestion(
                f"{number}/{index}",
                question.text,
                UNKNOWN if question.evidence is None else question.answer,
                NEVER_TOLD if question.evidence is None else _CATEGORIES.get(question.kind, ANSWERABLE),
                () if question.evidence is None else _probe_tags(question),
            )
            for index, question in enumerate(person.questions)
        )
        yield Case(f"probe-{seed}-{number}", turns, asked)


def preference_cases(people: int, seed: int, facts: int = 8, questions: int = 3, split: str = "test") -> Iterator[Case]:
    """Synthetic people of a split who ask for something without naming the fact that matters, four replies each; without those who have no such fact.

    Raises InvalidInputError for another split than test and validation.
    """
    corpus = probe_corpus(split)
    for number, person in enumerate(corpus.people(seed, people, facts, questions=questions, preferences=questions)):
        asked = tuple(
            TestQuestion(
                f"{number}/{index}",
                question.text,
                LETTERS[question.options.index(question.answer)],
                OPEN_DOMAIN,
                ("open_vocabulary" if question.open_vocabulary else "known_words",),
                question.options,
                () if question.evidence is None else (str(question.evidence),),
            )
            for index, question in enumerate(person.questions)
            if question.options
        )
        if asked:
            yield Case(f"preference-{seed}-{number}", history_of(person), asked)


def tell(engine: LPM, user_id: str, turns: Sequence[HistoryTurn]) -> None:
    """Have a memory remember a history, session by session, as it was said."""
    for (session_id, at), group in groupby(turns, key=lambda turn: (turn.session_id, turn.at)):
        engine.remember(user_id, [{"role": turn.role, "content": turn.content} for turn in group], session_id=session_id, at=at)


def history_of(person: Person) -> tuple[HistoryTurn, ...]:
    """The turns of a synthetic person."""
    rows = enumerate(zip(person.turns, person.sessions, strict=True))
    return tuple(HistoryTurn(f"s{session}", role, content, str(index), person.times[session]) for index, ((role, content), session) in rows)


def _probe_tags(question: Question) -> tuple[str, ...]:
    """How the value is known, and what of a change or a story is asked for."""
    return ("open_vocabulary" if question.open_vocabulary else "known_words", *([question.kind] if question.kind in ("update", "earlier", "story") else []))


def lengthened(case: Case, tokens: int, chat: ChatFormat, corpus: Corpus, rng: random.Random) -> Case:
    """The case with small talk between its turns until the history has `tokens` tokens, or more if it had."""
    turns = list(case.turns)
    length = sum(len(chat.turn(turn.role, chat.content(turn.dated))[0]) for turn in turns)
    number = 0
    while length < tokens:
        place = 2 * rng.randint(0, len(turns) // 2)
        near = turns[min(place, len(turns) - 1)]
        exchange = [HistoryTurn(near.session_id, role, content, f"talk{number}.{part}", near.at) for part, (role, content) in enumerate(corpus.talk(rng))]
        turns[place:place] = exchange
        length += sum(len(chat.turn(turn.role, chat.content(turn.dated))[0]) for turn in exchange)
        number += 1
    return replace(case, turns=tuple(turns))


def locomo_case(conversation: Conversation, flagged: Collection[str] | None = None) -> Case:
    """A LoCoMo conversation as one user: speaker A has the role of the user, B of the assistant, each line names its speaker.

    flagged: ids of questions whose gold an audit finds wrong; the others get the tag `audited`.
    """
    turns = tuple(
        HistoryTurn(
            session.id,
            "user" if turn.speaker == conversation.speaker_a else "assistant",
            f"{turn.speaker}: {turn.content}",
            turn.dia_id,
            session.at,
        )
        for session in conversation.sessions
        for turn in session.turns
    )
    asked = tuple(
        TestQuestion(
            question.id,
            question.question,
            None if question.category == NEVER_TOLD else question.answer,
            question.category,
            () if flagged is None or question.id in flagged else ("audited",),
            evidence=question.evidence,
        )
        for question in conversation.questions
    )
    return Case(conversation.id, turns, asked)


def personamem_cases(data: PersonaMem, *, generate: bool) -> Iterator[Case]:
    """PersonaMem's questions by the part of a context that they see. Its system messages, which tell the persona, are turns of the user here:
    memories keep what was said, and a window that is too small may drop any turn.

    generate: the question text holds instruction and options; else it is the question alone, and the options are there to be compared.
    """
    seen: dict[tuple[str, int], list[PersonaQuestion]] = {}
    for question in data.questions:
        seen.setdefault((question.context_id, question.end), []).append(question)
    for (context_id, end), questions in seen.items():
        turns = tuple(
            HistoryTurn(f"session {turn.session}", "assistant" if turn.role == "assistant" else "user", turn.content, str(index))
            for index, turn in enumerate(data.contexts[context_id][:end])
            if turn.content.strip()
        )
        asked = tuple(
            TestQuestion(item.id, item.prompt if generate else item.text, item.gold, QUESTION_TYPES.index(item.type) + 1, options=item.options)
            for item in questions
        )
        yield Case(f"{context_id[:16]}-{end}", turns, asked)
