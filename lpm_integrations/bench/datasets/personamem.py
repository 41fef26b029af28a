"""PersonaMem v1 (Jiang et al., COLM 2025; MIT): multiple-choice questions about one persona's chats with an assistant.

Questions are a CSV, contexts JSON lines of `{context_id: [{role, content}, …]}`. A question sees its context up to an index; each system message
opens a session.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lpm_core.exceptions import DatasetError
from lpm_core.training.preferences import LETTERS

__all__ = [
    "INSTRUCTION",
    "QUESTION_TYPES",
    "ContextTurn",
    "PersonaMem",
    "PersonaQuestion",
    "find_personamem",
    "load_personamem",
    "longest_option",
    "parse_choice",
]

QUESTION_TYPES: Final = (
    "track_full_preference_evolution",
    "recall_user_shared_facts",
    "recalling_the_reasons_behind_previous_updates",
    "suggest_new_ideas",
    "generalizing_to_new_scenarios",
    "provide_preference_aligned_recommendations",
    "recalling_facts_mentioned_by_the_user",
)
"""Question types of the 32k split; the category id of one is its place here, from 1."""

INSTRUCTION: Final = "Find the most appropriate model response and give your final answer (a), (b), (c), or (d) after the special token <final_answer>."
"""What stands between question and options when an answer is generated."""

_COLUMNS = ("question_id", "question_type", "user_question_or_message", "correct_answer", "all_options", "shared_context_id", "end_index_in_shared_context")
_WAY_OUT = "get questions_32k.csv and shared_contexts_32k.jsonl from https://huggingface.co/datasets/bowen-upenn/PersonaMem and name both paths"
_MARK = "<final_answer>"
_LETTER = re.compile(r"\(([a-d])\)")
_BARE = re.compile(r"\b([a-d])\b")
_OPTION = re.compile(r"^\s*\([a-d]\)\s*")


@dataclass(frozen=True)
class ContextTurn:
    """One message of a context; `session` counts from 1 and grows with each system message."""

    role: str
    content: str
    session: int


@dataclass(frozen=True)
class PersonaQuestion:
    """One question: `options` are the texts of (a), (b), … without their letters; `gold` is a letter; `end` is how much of the context it sees."""

    id: str
    type: str
    text: str
    options: tuple[str, ...]
    gold: str
    context_id: str
    end: int

    @property
    def prompt(self) -> str:
        """The question as one user message, with the options, for an answer to be generated."""
        listed = [f"({letter}) {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n\n".join((self.text, INSTRUCTION, "\n".join(listed)))


@dataclass(frozen=True)
class PersonaMem:
    """Questions whose context is there, the contexts, and how many questions had none."""

    questions: tuple[PersonaQuestion, ...]
    contexts: Mapping[str, tuple[ContextTurn, ...]]
    skipped: int
    all_questions: tuple[PersonaQuestion, ...]


def find_personamem(data: str | Path, contexts: str | Path | None = None) -> tuple[Path, Path]:
    """The two files: `data` is the CSV or its folder, `contexts` by default the one shared_contexts*.jsonl beside it. Raises DatasetError."""
    data = Path(data)
    questions = _only(data, "questions*.csv") if data.is_dir() else data
    return questions, _only(questions.parent, "shared_contexts*.jsonl") if contexts is None else Path(contexts)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DatasetError(f"{folder} has {len(found)} files {pattern}, not one: name the file; {_WAY_OUT}")
    return found[0]


def load_personamem(questions: str | Path, contexts: str | Path) -> PersonaMem:
    """Read both files. Questions without their context are counted and left out.

    Raises DatasetError if a file is missing or not of this shape, with the row that differs.
    """
    asked = _questions(Path(questions))
    known = _contexts(Path(contexts))
    kept = tuple(question for question in asked if question.context_id in known)
    for question in kept:
        if not 0 < question.end <= len(known[question.context_id]):
            raise DatasetError(
                f"{questions}: question {question.id} ends at message {question.end} of a context of {len(known[question.context_id])}: {_WAY_OUT}"
            )
    return PersonaMem(kept, known, len(asked) - len(kept), asked)


def longest_option(options: Sequence[str]) -> str:
    """The letter of the longest option: a baseline that reads nothing (51.6 % on the 32k split)."""
    return LETTERS[max(range(len(options)), key=lambda index: len(options[index]))]


def parse_choice(response: str, gold: str) -> bool:
    """Whether a generated response chooses `gold` and nothing else, as PersonaMem's own code decides it.

    The text after the last <final_answer> counts: its (a)…(d), else its bare letters; if that is not the gold alone, the whole response.
    """
    return any(_letters(text) == {gold} for text in (response.rpartition(_MARK)[2], response))


def _letters(text: str) -> set[str]:
    low = text.lower()
    return set(_LETTER.findall(low)) or set(_BARE.findall(low))


def _questions(path: Path) -> tuple[PersonaQuestion, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DatasetError(f"{path} has no column {missing[0]!r}: {_WAY_OUT}")
            return tuple(_question(path, number, row) for number, row in enumerate(reader, start=2))
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error.strerror or error}): {_WAY_OUT}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file of UTF-8 text ({error}): {_WAY_OUT}") from error


def _question(path: Path, number: int, row: Mapping[str, str]) -> PersonaQuestion:
    def wrong(column: str) -> DatasetError:
        return DatasetError(f"{path}, row {number}: {column} is {row[column]!r:.80}: {_WAY_OUT}")

    options = _options(row["all_options"])
    if not options or len(options) > 4:
        raise wrong("all_options")
    gold = _LETTER.search((row["correct_answer"] or "").lower())
    if gold is None or LETTERS.index(gold[1]) >= len(options):
        raise wrong("correct_answer")
    if row["question_type"] not in QUESTION_TYPES:
        raise wrong("question_type")
    try:
        end = int(row["end_index_in_shared_context"])
    except (TypeError, ValueError):
        raise wrong("end_index_in_shared_context") from None
    return PersonaQuestion(row["question_id"], row["question_type"], row["user_question_or_message"], options, gold[1], row["shared_context_id"], end)


def _options(text: str | None) -> tuple[str, ...]:
    """The list of options, JSON in half of the rows and a Python literal in the rest."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text or "")
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(found, list) and all(isinstance(item, str) and item.strip() for item in found):
            return tuple(_OPTION.sub("", item) for item in found)
    return ()


def _contexts(path: Path) -> dict[str, tuple[ContextTurn, ...]]:
    try:
        lines = path.read_text("utf-8").split("\n")
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error.strerror or error}): {_WAY_OUT}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}): {_WAY_OUT}") from error
    found: dict[str, tuple[ContextTurn, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found |= _context(path, number, line)
    return found


def _context(path: Path, number: int, line: str) -> dict[str, tuple[ContextTurn, ...]]:
    try:
        return {name: _turns(messages) for name, messages in json.loads(line).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}, line {number}: not {{context_id: [{{role, content}}]}} ({error}): {_WAY_OUT}") from error


def _turns(messages: Any) -> tuple[ContextTurn, ...]:
    turns, session = [], 0
    for message in messages:
        role, content = message["role"], message["content"]
        if not isinstance(content, str) or role not in ("system", "user", "assistant"):
            raise ValueError(f"a message of role {role!r} with content of type {type(content).__name__}")
        session += role == "system" or session == 0
        turns.append(ContextTurn(role, content, session))
    return tuple(turns)
