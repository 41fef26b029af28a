"""A user's own history and questions, as JSON lines: one person a line.

    {"user_id": "ann",
     "history": [{"role": "user", "content": "I moved to Oslo.", "session_id": "s1", "at": "2024-05-17T09:30:00", "id": "t1"}, …],
     "questions": [{"question": "Where do I live?", "answer": "Oslo", "evidence": ["t1"], "category": 4, "id": "q1"}, …]}

Needed are user_id, and of a turn role ("user" or "assistant") and content, and of a question the question. `session_id` is "default" if it is absent,
`at` an ISO 8601 time, a turn's `id` its number from 0. A question without `answer`, or with null, is one that the history does not answer: right is
to say so (category 5). `category` is a LoCoMo category id, 4 (single-hop) if it is absent; `evidence` names turns.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpm_core.exceptions import DatasetError
from lpm_integrations.bench.cases import NEVER_TOLD, SOME_DAY, Case, HistoryTurn, TestQuestion

__all__ = ["HANDWRITTEN", "load_own"]

HANDWRITTEN: Final = Path(__file__).with_name("handwritten.jsonl")
"""Invented people, written by hand: no training sees them."""

_WAY_OUT = 'a line is {"user_id": …, "history": [{"role", "content", …}], "questions": [{"question", "answer", …}]}'


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _RawTurn(_Strict):
    role: Literal["user", "assistant"]
    content: str = Field(pattern=r"\S")
    session_id: str = "default"
    at: datetime | None = None
    id: str | None = None


class _RawQuestion(_Strict):
    question: str = Field(pattern=r"\S")
    answer: str | int | float | None = None
    category: Literal[1, 2, 3, 4, 5] = 4
    evidence: list[str] = []
    id: str | None = None


class _RawPerson(_Strict):
    user_id: str = Field(pattern=r"\S")
    history: list[_RawTurn]
    questions: list[_RawQuestion]


def load_own(path: str | Path) -> list[Case]:
    """Read the file, one case a line; empty lines are passed over. Raises DatasetError with the line and the field that differ."""
    path = Path(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error.strerror or error}): name a file of JSON lines") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    cases = [_case(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    users = [case.user_id for case in cases]
    if twice := next((user for user in users if users.count(user) > 1), None):
        raise DatasetError(f"{path}: user {twice!r} has two lines; put all they said on one")
    return cases


def _case(path: Path, number: int, line: str) -> Case:
    try:
        person = _RawPerson.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise DatasetError(f"{path}, line {number}: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}; {_WAY_OUT}") from error
    turns = tuple(
        HistoryTurn(turn.session_id, turn.role, turn.content, str(place) if turn.id is None else turn.id, turn.at or SOME_DAY)
        for place, turn in enumerate(person.history)
    )
    known = {turn.key for turn in turns}
    questions = []
    for place, item in enumerate(person.questions):
        if unknown := sorted(set(item.evidence) - known):
            raise DatasetError(f"{path}, line {number}: questions.{place}.evidence names {unknown[0]!r}, which is no turn; name turns by their id or number")
        untold = item.answer is None or item.category == NEVER_TOLD
        gold = None if untold else str(item.answer)
        name = f"{person.user_id}/{place if item.id is None else item.id}"
        questions.append(TestQuestion(name, item.question, gold, NEVER_TOLD if untold else item.category, evidence=tuple(item.evidence)))
    return Case(person.user_id, turns, tuple(questions))
