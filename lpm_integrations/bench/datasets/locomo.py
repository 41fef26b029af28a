"""LoCoMo's file (Maharana et al., ACL 2024): long two-person conversations with questions, read into plain values.

The data is CC BY-NC 4.0 and not part of this package; `SAMPLE` is a small file of the same format, written for this project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from lpm_core.exceptions import DatasetError

__all__ = ["CATEGORIES", "SAMPLE", "Conversation", "DialogTurn", "LocomoQuestion", "Session", "load_audit", "load_locomo"]

CATEGORIES: Final[Mapping[int, str]] = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
"""LoCoMo's category ids and their official names."""

SAMPLE: Final = Path(__file__).with_name("sample_locomo.json")
"""Two short invented conversations in LoCoMo's format."""

_DATE = "%I:%M %p on %d %B, %Y"
_SESSION = re.compile(r"session_(\d+)")
_DIA_ID = re.compile(r"D:?(\d+):(\d+)")  # the file also has "D:11:26", "D30:05" and several ids in one string
_WAY_OUT = "get locomo10.json from https://github.com/snap-research/locomo (data/) and name its path"

T = TypeVar("T")


@dataclass(frozen=True)
class DialogTurn:
    """One turn of a session; `caption` describes the photo shared with it."""

    dia_id: str
    speaker: str
    text: str
    caption: str | None

    @property
    def content(self) -> str:
        """What a memory should ingest: the text, and what its photo shows. Never the file's `query`, from which answers leak."""
        photo = f"[shares a photo: {self.caption}]" if self.caption else ""
        return f"{self.text} {photo}".strip()


@dataclass(frozen=True)
class Session:
    """The turns of one meeting, and when it took place (no time zone)."""

    id: str
    at: datetime
    turns: tuple[DialogTurn, ...]


@dataclass(frozen=True)
class LocomoQuestion:
    """One question. `answer` is "" for an adversarial one without a gold answer; `evidence` names turns that exist."""

    id: str
    question: str
    answer: str
    category: int
    evidence: tuple[str, ...]
    adversarial_answer: str | None


@dataclass(frozen=True)
class Conversation:
    """Two people over many sessions, and the questions about them.

    `dropped_evidence` counts the evidence references in the file that name no turn of this conversation.
    """

    id: str
    speaker_a: str
    speaker_b: str
    sessions: tuple[Session, ...]
    questions: tuple[LocomoQuestion, ...]
    dropped_evidence: int = 0


class _RawTurn(BaseModel):
    speaker: str
    dia_id: str
    text: str
    blip_caption: str | None = None


class _RawQuestion(BaseModel):
    question: str
    category: Literal[1, 2, 3, 4, 5]
    answer: str | int | float | None = None
    adversarial_answer: str | None = None
    evidence: list[str] = []


class _RawConversation(BaseModel):
    sample_id: str
    conversation: dict[str, Any]
    qa: list[_RawQuestion]


class _RawFinding(BaseModel):
    question_id: str
    error_type: str


_FILE: Final = TypeAdapter(list[_RawConversation])
_AUDIT: Final = TypeAdapter(list[_RawFinding])
_TURNS: Final = TypeAdapter(list[_RawTurn])
_NAME: Final = TypeAdapter(str)


def load_locomo(path: str | Path) -> list[Conversation]:
    """Read a LoCoMo file, conversations in file order, sessions by number.

    Malformed evidence is repaired where it is clear which turn is meant, else dropped and counted.
    Raises DatasetError if the file is missing, not JSON, or not of LoCoMo's shape.
    """
    path = Path(path)
    try:
        records = _FILE.validate_json(_bytes(path, _WAY_OUT))
    except ValidationError as error:
        raise _error(path, error, ()) from error
    return [_conversation(path, index, record) for index, record in enumerate(records)]


def load_audit(path: str | Path) -> frozenset[str]:
    """Ids of the questions whose gold answer a public audit (locomo_audit_errors.json) finds wrong; a wrong citation alone does not count.

    Raises DatasetError if the file is missing, not JSON, or not an audit.
    """
    path = Path(path)
    try:
        findings = _AUDIT.validate_json(_bytes(path, "name a locomo_audit_errors.json"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DatasetError(f"{path} is not an audit of LoCoMo: {where}: {first['msg']}. It is a list of question_id and error_type") from error
    return frozenset(finding.question_id for finding in findings if finding.error_type != "WRONG_CITATION")


def _bytes(path: Path, way_out: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error.strerror or error}): {way_out}") from error


def _conversation(path: Path, index: int, record: _RawConversation) -> Conversation:
    raw = record.conversation
    numbers = sorted(int(match[1]) for key in raw if (match := _SESSION.fullmatch(key)))
    sessions = tuple(_session(path, index, raw, number) for number in numbers)
    known = {turn.dia_id for session in sessions for turn in session.turns}
    questions, dropped = [], 0
    for number, item in enumerate(record.qa):
        if item.answer is None and item.category != 5:
            raise _malformed(path, (index, "qa", number, "answer"), "only an adversarial question may lack it")
        evidence, lost = _evidence(item.evidence, known)
        dropped += lost
        answer = "" if item.answer is None else str(item.answer)
        questions.append(LocomoQuestion(f"locomo_{index}_qa{number}", item.question, answer, item.category, evidence, item.adversarial_answer))
    speaker_a, speaker_b = (_part(path, index, raw, key, _NAME) for key in ("speaker_a", "speaker_b"))
    return Conversation(record.sample_id, speaker_a, speaker_b, sessions, tuple(questions), dropped)


def _session(path: Path, index: int, raw: Mapping[str, Any], number: int) -> Session:
    key = f"session_{number}"
    turns = _part(path, index, raw, key, _TURNS)
    date = _part(path, index, raw, f"{key}_date_time", _NAME)
    try:
        at = datetime.strptime(date.strip(), _DATE)
    except ValueError as error:
        raise _malformed(path, (index, "conversation", f"{key}_date_time"), f"{date!r} is not a time like '1:56 pm on 8 May, 2023'") from error
    return Session(key, at, tuple(DialogTurn(turn.dia_id, turn.speaker, turn.text, turn.blip_caption or None) for turn in turns))


def _evidence(references: list[str], known: set[str]) -> tuple[tuple[str, ...], int]:
    """The turns that the references name, and how many references name none."""
    kept: list[str] = []
    dropped = 0
    for reference in references:
        found = [f"D{int(session)}:{int(turn)}" for session, turn in _DIA_ID.findall(reference)]
        kept += [name for name in found if name in known]
        dropped += sum(name not in known for name in found) if found else 1
    return tuple(kept), dropped


def _part(path: Path, index: int, raw: Mapping[str, Any], key: str, kind: TypeAdapter[T]) -> T:
    try:
        return kind.validate_python(raw.get(key))
    except ValidationError as error:
        raise _error(path, error, (index, "conversation", key)) from error


def _error(path: Path, error: ValidationError, inside: tuple[int | str, ...]) -> DatasetError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return DatasetError(f"{path} is not JSON ({first['msg']}): {_WAY_OUT}")
    return _malformed(path, (*inside, *first["loc"]), first["msg"])


def _malformed(path: Path, place: tuple[int | str, ...], reason: str) -> DatasetError:
    where = ".".join(str(step) for step in place) or "the whole"
    return DatasetError(f"{path} is not a LoCoMo file: {where}: {reason}. For the original, {_WAY_OUT}")
