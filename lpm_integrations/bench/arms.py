"""The arms of a comparison: ways to give one frozen backbone a user's history."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from lpm_core.engine import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_integrations.bench.cases import Case, TestQuestion

if TYPE_CHECKING:
    from torch import Tensor

    from lpm_integrations.chroma.retrieval import ChromaRetrieval

__all__ = ["ARMS", "Arm", "Outcome", "make_arm"]


@dataclass(frozen=True)
class Outcome:
    """One answer and what it cost. `nll` is nats per token of the gold answer; None where there is none."""

    answer: str
    nll: float | None
    prompt_tokens: int
    soft_tokens: int
    kv_bytes: int
    search_ms: float
    total_ms: float


class Arm(ABC):
    """One way to remember, in front of the engine's backbone."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int) -> None:
        self.engine, self.folder, self.max_new_tokens = engine, folder, max_new_tokens

    def write(self, case: Case) -> None:  # noqa: B027 (most arms need none)
        """Take in a user's history."""

    @abstractmethod
    def prompt(self, case: Case, question: TestQuestion) -> tuple[Tensor, int]:
        """The embedded prompt [T, d] and how many of it are soft tokens."""

    def answer(self, case: Case, question: TestQuestion) -> Outcome:
        """Answer one question, greedily."""
        backbone = self.engine.backbone
        begin = time.perf_counter()
        embeds, soft = self.prompt(case, question)
        found = time.perf_counter()
        text = backbone.chat.decode(list(backbone.generate(embeds, max_new_tokens=self.max_new_tokens))).strip()
        done = time.perf_counter()
        nll = None if question.gold is None else backbone.answer_loss(embeds, [*backbone.chat.text(question.gold), *backbone.chat.markup("<|im_end|>")])
        kv_bytes = len(embeds) * backbone.kv_bytes_per_token
        return Outcome(text, nll, len(embeds) - soft, soft, kv_bytes, (found - begin) * 1000, (done - begin) * 1000)


class _None(Arm):
    """The question alone."""

    def prompt(self, case: Case, question: TestQuestion) -> tuple[Tensor, int]:  # noqa: ARG002 (the base class's signature)
        return self.engine.prompt(None, question.text, room=self.max_new_tokens)[0], 0


class _Full(Arm):
    """The history in context; the oldest turns fall out where it is longer than the backbone's window."""

    def prompt(self, case: Case, question: TestQuestion) -> tuple[Tensor, int]:
        messages = [{"role": turn.role, "content": turn.content} for turn in case.turns]
        return self.engine.prompt(None, [*messages, {"role": "user", "content": question.text}], room=self.max_new_tokens)[0], 0


class _LPM(Arm):
    """Soft tokens from slots written in one pass."""

    def write(self, case: Case) -> None:
        for (session_id, at), group in groupby(case.turns, key=lambda turn: (turn.session_id, turn.at)):
            self.engine.remember(case.user_id, [{"role": turn.role, "content": turn.content} for turn in group], session_id=session_id, at=at)

    def prompt(self, case: Case, question: TestQuestion) -> tuple[Tensor, int]:
        embeds, recall = self.engine.prompt(self._owner(case), question.text, room=self.max_new_tokens)
        return embeds, len(recall.soft_prompt) if recall else 0

    def _owner(self, case: Case) -> str:
        return case.user_id


class _Shuffled(_LPM):
    """Control: the soft tokens of another user."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int) -> None:
        super().__init__(engine, folder, max_new_tokens)
        self._users: list[str] = []

    def write(self, case: Case) -> None:
        if case.user_id not in self.engine.users():
            super().write(case)
        self._users.append(case.user_id)

    def _owner(self, case: Case) -> str:
        return self._users[self._users.index(case.user_id) - 1]


class _RAG(Arm):
    """The `k` turns nearest to the question (Chroma, MiniLM, cosine), in the order they were said, as turns of dialogue."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, k: int = 5) -> None:
        super().__init__(engine, folder, max_new_tokens)
        from lpm_integrations.chroma.retrieval import ChromaRetrieval

        self.k = k
        self.retrieval: ChromaRetrieval = ChromaRetrieval(folder / "rag")

    def write(self, case: Case) -> None:
        if not self.retrieval.count(case.user_id):
            self.retrieval.add(
                case.user_id, [turn.content for turn in case.turns], metadatas=[{"role": turn.role, "order": index} for index, turn in enumerate(case.turns)]
            )

    def prompt(self, case: Case, question: TestQuestion) -> tuple[Tensor, int]:
        hits = sorted(self.retrieval.search(case.user_id, question.text, k=self.k), key=lambda hit: int(hit.metadata["order"]))
        messages = [{"role": hit.metadata["role"], "content": hit.text} for hit in hits]
        return self.engine.prompt(None, [*messages, {"role": "user", "content": question.text}], room=self.max_new_tokens)[0], 0


ARMS: dict[str, Callable[[LPM, Path, int], Arm]] = {"none": _None, "shuffled": _Shuffled, "full": _Full, "rag": _RAG, "lpm": _LPM}


def make_arm(name: str, engine: LPM, folder: Path, max_new_tokens: int) -> Arm:
    """An arm by name. Raises InvalidInputError for a name that is none."""
    _check(name)
    return ARMS[name](engine, folder, max_new_tokens)


def arm_names(text: str) -> Sequence[str]:
    """Arms from a comma-separated list, each once."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        _check(name)
    if not names:
        raise InvalidInputError(f"no arms were named; arms are {', '.join(ARMS)}")
    return names


def _check(name: str) -> None:
    if name not in ARMS:
        raise InvalidInputError(f"there is no arm {name!r}; arms are {', '.join(ARMS)}")
