"""LongMemEval's file (Wu et al., ICLR 2025; MIT): one question each over a haystack of dated chat sessions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from lpm_core.exceptions import DatasetError
from lpm_integrations.bench.cases import Case, HistoryTurn, TestQuestion

__all__ = ["ABSTENTION", "QUESTION_TYPES", "load_longmemeval"]

QUESTION_TYPES: Final = (
    "single-session-user",
    "single-session-assistant",
    "single-session-preference",
    "multi-session",
    "temporal-reasoning",
    "knowledge-update",
)
"""Question types; the category id of one is its place here, from 1."""

ABSTENTION: Final = 7
"""Category id of questions without an answer in the haystack (ids that end with "_abs")."""

_DATE = "%Y/%m/%d (%a) %H:%M"
_WAY_OUT = "get longmemeval_s.json or longmemeval_oracle.json from https://github.com/xiaowu0162/LongMemEval and name its path"


class _RawTurn(BaseModel):
    role: str
    content: str
    has_answer: bool = False


class _RawQuestion(BaseModel):
    question_id: str
    question_type: str
    question: str
    answer: str | int | float
    haystack_sessions: list[list[_RawTurn]]
    haystack_session_ids: list[str]
    haystack_dates: list[str]


_FILE: Final = TypeAdapter(list[_RawQuestion])


def load_longmemeval(path: str | Path) -> list[Case]:
    """Read a file, one case per question; turns marked `has_answer` are its evidence. Empty turns are left out.

    Raises DatasetError if the file is missing, not JSON, or not of this shape.
    """
    path = Path(path)
    try:
        records = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error.strerror or error}): {_WAY_OUT}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DatasetError(f"{path} is not a LongMemEval file: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}: {_WAY_OUT}") from error
    return [_case(path, record) for record in records]


def _case(path: Path, record: _RawQuestion) -> Case:
    if record.question_type not in QUESTION_TYPES:
        raise DatasetError(f"{path}, {record.question_id}: question_type {record.question_type!r} is not one of {', '.join(QUESTION_TYPES)}")
    if not len(record.haystack_sessions) == len(record.haystack_session_ids) == len(record.haystack_dates):
        raise DatasetError(f"{path}, {record.question_id}: there must be as many haystack_sessions as haystack_session_ids and haystack_dates: {_WAY_OUT}")
    turns, evidence = [], []
    for place, (session_id, date, session) in enumerate(zip(record.haystack_session_ids, record.haystack_dates, record.haystack_sessions, strict=True)):
        at = _moment(path, record.question_id, date)
        for number, turn in enumerate(session):
            key = f"{place}/{number}"
            if turn.content.strip() and turn.role in ("user", "assistant"):
                turns.append(HistoryTurn(f"{place} {session_id}", turn.role, turn.content, key, at))
                evidence += [key] * turn.has_answer
    category = ABSTENTION if record.question_id.endswith("_abs") else QUESTION_TYPES.index(record.question_type) + 1
    gold = None if category == ABSTENTION else str(record.answer)
    question = TestQuestion(record.question_id, record.question, gold, category, evidence=tuple(evidence))
    return Case(f"longmemeval-{record.question_id}", tuple(turns), (question,))


def _moment(path: Path, question_id: str, date: str) -> datetime:
    try:
        return datetime.strptime(date.strip(), _DATE)
    except ValueError as error:
        raise DatasetError(f"{path}, {question_id}: {date!r} is not a date like '2023/05/20 (Sat) 02:21': {_WAY_OUT}") from error
