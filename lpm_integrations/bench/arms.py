"""The arms of a comparison: ways to give one frozen backbone a user's history."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lpm_core.engine import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_core.training.preferences import LETTERS
from lpm_integrations.bench.cases import Case, HistoryTurn, TestQuestion, tell

if TYPE_CHECKING:
    from torch import Tensor

    from lpm_core.backbone import Backbone
    from lpm_integrations.bench.models import ChatAnswerer
    from lpm_integrations.chroma.retrieval import ChromaRetrieval

__all__ = ["ARMS", "Arm", "BareArm", "LPMArm", "Outcome", "Prompt", "arm_names", "make_arm", "parse_arm"]

Messages = list[dict[str, str]]

_MARKUP_TOKENS = 32  # more than the chat format puts around one message


@dataclass(frozen=True)
class Prompt:
    """An embedded prompt [T, d]: `soft` of its rows are soft tokens; `retrieved` are the keys of the turns that memory pointed to, if it does."""

    embeds: Tensor
    soft: int = 0
    retrieved: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """One answer and what it cost. `nll` is nats per token of the gold answer; None where there is none.

    A chat model from outside has neither likelihoods nor a KV cache to look at, and says its tokens only if it counts them.
    """

    answer: str
    nll: float | None
    prompt_tokens: int | None
    soft_tokens: int
    kv_bytes: int | None
    search_ms: float
    total_ms: float
    retrieved: tuple[str, ...] | None = None


class Arm(ABC):
    """One way to remember, in front of the engine's backbone, or of any chat model, which gets the history as text."""

    side_by_side = True
    """Whether several users can be asked at once."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, answerer: ChatAnswerer | None = None) -> None:
        self.engine, self.folder, self.max_new_tokens, self.answerer = engine, folder, max_new_tokens, answerer

    def write(self, case: Case) -> None:  # noqa: B027 (most arms need none)
        """Take in a user's history."""

    @abstractmethod
    def messages(self, case: Case, question: TestQuestion) -> tuple[Messages, tuple[str, ...] | None]:
        """The question behind what this arm remembers as text, and the keys of the turns that it chose, if it chooses."""

    def ready(self) -> None:  # noqa: B027 (as above)
        """Called once all histories are written: what is cheaper for many users at once."""

    def backbone(self, case: Case) -> Backbone:  # noqa: ARG002 (for arms that change it for a user)
        """The model that answers this user's questions."""
        return self.engine.backbone

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        """The embedded prompt, with `room` positions left for the answer."""
        messages, keys = self.messages(case, question)
        return Prompt(self.engine.prompt(None, messages, room=room)[0], retrieved=keys)

    def close(self) -> None:  # noqa: B027 (most arms hold no file)
        """Let go of files."""

    def answer(self, case: Case, question: TestQuestion) -> Outcome:
        """Answer one question, greedily."""
        if self.answerer:
            return self._answer_in_text(self.answerer, case, question)
        backbone = self.backbone(case)
        begin = time.perf_counter()
        prompt = self.prompt(case, question, self.max_new_tokens)
        found = time.perf_counter()
        text = backbone.chat.decode(list(backbone.generate(prompt.embeds, max_new_tokens=self.max_new_tokens))).strip()
        done = time.perf_counter()
        nll = None
        if question.gold is not None and not question.options:
            nll = backbone.answer_loss(prompt.embeds, [*backbone.chat.content(question.gold), *backbone.chat.markup("<|im_end|>")])
        return self._outcome(prompt, text, nll, begin, found, done)

    def _answer_in_text(self, answerer: ChatAnswerer, case: Case, question: TestQuestion) -> Outcome:
        begin = time.perf_counter()
        messages, keys = self.messages(case, question)
        found = time.perf_counter()
        answer, tokens = answerer.reply(messages)
        done = time.perf_counter()
        return Outcome(answer, None, tokens, 0, None, (found - begin) * 1000, (done - begin) * 1000, keys)

    def choose(self, case: Case, question: TestQuestion) -> Outcome:
        """The letter of the option with the best log-likelihood per token: for backbones too small to follow an answer format.

        An option counts with at most half the backbone's window; a question too long for the rest loses its beginning.
        """
        backbone = self.backbone(case)
        options = [[*backbone.chat.content(option), *backbone.chat.markup("<|im_end|>")][: backbone.window // 2] for option in question.options]
        room = max(map(len, options))
        words = backbone.chat.content(question.text)
        limit = max(1, backbone.window - room - self.engine.weights.config.heads - _MARKUP_TOKENS)
        short = question if len(words) <= limit else replace(question, text=backbone.chat.decode(words[-limit:]))
        begin = time.perf_counter()
        prompt = self.prompt(case, short, room)
        found = time.perf_counter()
        losses = [backbone.answer_loss(prompt.embeds, ids) for ids in options]
        done = time.perf_counter()
        gold = None if question.gold is None else losses[LETTERS.index(question.gold)]
        return self._outcome(prompt, LETTERS[losses.index(min(losses))], gold, begin, found, done)

    def _outcome(self, prompt: Prompt, answer: str, nll: float | None, begin: float, found: float, done: float) -> Outcome:
        length = len(prompt.embeds)
        kv_bytes = length * self.engine.backbone.kv_bytes_per_token
        return Outcome(answer, nll, length - prompt.soft, prompt.soft, kv_bytes, (found - begin) * 1000, (done - begin) * 1000, prompt.retrieved)


def _asked(said: Sequence[HistoryTurn], question: TestQuestion) -> Messages:
    return [*({"role": turn.role, "content": turn.dated} for turn in said), {"role": "user", "content": question.text}]


def _chosen(said: Sequence[HistoryTurn], question: TestQuestion) -> tuple[Messages, tuple[str, ...]]:
    """The question behind the turns that an arm chose, and the keys of these."""
    return _asked(said, question), tuple(turn.key for turn in said)


class BareArm(Arm):
    """The question alone."""

    def messages(self, case: Case, question: TestQuestion) -> tuple[Messages, None]:  # noqa: ARG002 (the base class's signature)
        """No turns."""
        return _asked((), question), None


class _Full(Arm):
    """The history in context; the oldest turns fall out where it is longer than the backbone's window."""

    def messages(self, case: Case, question: TestQuestion) -> tuple[Messages, None]:
        return _asked(case.turns, question), None


class LPMArm(Arm):
    """Soft tokens from slots written in one pass. Its provenance, the turns behind the slots it attends to, is its retrieval, and what it gives as text."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, answerer: ChatAnswerer | None = None) -> None:
        super().__init__(engine, folder, max_new_tokens, answerer)
        self._keys: dict[str, str] = {}  # of turns, by their ids in the store

    def write(self, case: Case) -> None:
        """Remember the history, if no other arm of this engine did."""
        if case.user_id not in self.engine.users():
            tell(self.engine, case.user_id, case.turns)
        stored = self.engine.turns(case.user_id)  # in the order of the case's
        self._keys |= {kept.id: turn.key for turn, kept in zip(case.turns, stored, strict=True)}

    def messages(self, case: Case, question: TestQuestion) -> tuple[Messages, tuple[str, ...] | None]:
        """The turns that the read attention points to."""
        return self._recalled(case, question)

    def _recalled(self, case: Case, question: TestQuestion) -> tuple[Messages, tuple[str, ...]]:
        """The turns of a user that the read attention points to, in the order they were said."""
        found = {self._keys[item.turn.id] for item in self.engine.recall(case.user_id, question.text).evidence}
        said = [turn for turn in case.turns if turn.key in found]
        return _chosen(said, question)

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        """Soft tokens and the question."""
        return self._read(case, _asked((), question), room)

    def _read(self, case: Case, messages: Sequence[dict[str, str]], room: int) -> Prompt:
        embeds, recall = self.engine.prompt(case.user_id, messages, room=room)
        if recall is None:
            return Prompt(embeds)
        return Prompt(embeds, len(recall.soft_prompt), tuple(self._keys[item.turn.id] for item in recall.evidence))


class _Shuffled(LPMArm):
    """Control: the memory of another user."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, answerer: ChatAnswerer | None = None) -> None:
        super().__init__(engine, folder, max_new_tokens, answerer)
        self._cases: dict[str, Case] = {}

    def write(self, case: Case) -> None:
        super().write(case)
        self._cases[case.user_id] = case

    def _other(self, case: Case) -> Case:
        users = list(self._cases)
        return self._cases[users[users.index(case.user_id) - 1]]

    def messages(self, case: Case, question: TestQuestion) -> tuple[Messages, tuple[str, ...] | None]:
        return self._recalled(self._other(case), question)[0], None

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        embeds, recall = self.engine.prompt(self._other(case).user_id, question.text, room=room)
        return Prompt(embeds, len(recall.soft_prompt) if recall else 0)


class _RAG(Arm):
    """The `k` turns nearest to the question (Chroma, MiniLM, cosine), in the order they were said, as turns of dialogue."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, answerer: ChatAnswerer | None = None, *, k: int) -> None:
        super().__init__(engine, folder, max_new_tokens, answerer)
        from lpm_integrations.chroma.retrieval import ChromaRetrieval

        self.k = k
        self.retrieval: ChromaRetrieval = ChromaRetrieval(folder / "rag")

    def write(self, case: Case) -> None:
        if not self.retrieval.count(case.user_id):
            self.retrieval.add(
                case.user_id, [turn.dated for turn in case.turns], metadatas=[{"role": turn.role, "order": index} for index, turn in enumerate(case.turns)]
            )

    def messages(self, case: Case, question: TestQuestion) -> tuple[Messages, tuple[str, ...]]:
        orders = sorted(int(hit.metadata["order"]) for hit in self.retrieval.search(case.user_id, question.text, k=self.k))
        said = [case.turns[order] for order in orders]
        return _chosen(said, question)

    def close(self) -> None:
        self.retrieval.close()


class _Hybrid(LPMArm):
    """LPM's soft tokens and, as text, the `k` turns that RAG finds; for a model that reads text, the turns of both."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, answerer: ChatAnswerer | None = None, *, k: int) -> None:
        super().__init__(engine, folder, max_new_tokens, answerer)
        self._rag = _RAG(engine, folder, max_new_tokens, k=k)

    def write(self, case: Case) -> None:
        super().write(case)
        self._rag.write(case)

    def messages(self, case: Case, question: TestQuestion) -> tuple[Messages, tuple[str, ...]]:
        keys = {*(self._recalled(case, question)[1]), *self._rag.messages(case, question)[1]}
        said = [turn for turn in case.turns if turn.key in keys]
        return _chosen(said, question)

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        messages, keys = self._rag.messages(case, question)
        prompt = self._read(case, messages, room)
        return replace(prompt, retrieved=tuple(dict.fromkeys((*(prompt.retrieved or ()), *keys))))

    def close(self) -> None:
        self._rag.close()


_PLAIN: Final[dict[str, type[Arm]]] = {"none": BareArm, "shuffled": _Shuffled, "full": _Full, "lpm": LPMArm}
_RETRIEVING: Final[dict[str, tuple[type[_RAG] | type[_Hybrid], int]]] = {"rag": (_RAG, 5), "hybrid": (_Hybrid, 2)}
_TRAINED: Final = ("lpm+consolidated", "lora", "prompt_tuning")
_COUNTED: Final = ("lpm", "lpm_slots")  # a number in their names is one of soft tokens, of slots
_ABLATED: Final = ("lpm_slots", "lpm_static", "lpm_window", "lpm_message")
_TUNED = re.compile(r"([a-z_+]+)@([0-9.e-]{1,8})(?:x([1-9][0-9]{0,3}))?")

ARMS: Final = (*_PLAIN, *_RETRIEVING, *_TRAINED, *_ABLATED)
"""Names of arms. rag takes 5 turns and hybrid 2, or as many as their name says: rag@10. A trained arm's name may say its learning rate, and for how many
steps it learns: lora@1e-3, lora@1e-3x100; lpm@H keeps H soft tokens, lpm_slots@N has N slots."""


def make_arm(name: str, engine: LPM, folder: Path, max_new_tokens: int, answerer: ChatAnswerer | None = None) -> Arm:
    """An arm by name. With an `answerer`, that model answers, from text. Raises InvalidInputError for a name that is none, or gives no text."""
    kind, number, steps = parse_arm(name)
    if kind in _PLAIN and number is None:
        return _PLAIN[kind](engine, folder, max_new_tokens, answerer)
    if kind in _RETRIEVING:
        made, usual = _RETRIEVING[kind]
        return made(engine, folder, max_new_tokens, answerer, k=int(number or usual))
    if answerer:
        raise InvalidInputError(
            f"the arm {name!r} changes what stands before or within the backbone, which no other model can read; leave it or --answerer out"
        )
    if kind not in _TRAINED:
        from lpm_integrations.bench.ablated import ablated_arm

        return ablated_arm(kind, engine, folder, max_new_tokens, None if number is None else int(number))
    from lpm_integrations.bench.trained import trained_arm

    return trained_arm(kind, engine, folder, max_new_tokens, number, steps)


def arm_names(text: str) -> Sequence[str]:
    """Arms from a comma-separated list, each once. Raises InvalidInputError for a name that is none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        parse_arm(name)
    if not names:
        raise InvalidInputError(f"no arms were named; arms are {', '.join(ARMS)}")
    return names


def parse_arm(name: str) -> tuple[str, float | None, int | None]:
    """The kind of an arm, and the numbers in its name: turns of text, or learning rate and steps. Raises InvalidInputError if there is no such arm."""
    tuned = _TUNED.fullmatch(name)
    kind, text, steps = (tuned[1], tuned[2], tuned[3]) if tuned else (name, None, None)
    try:
        number = float(text) if text else None
    except ValueError:
        kind, number = name, None
    whole = kind in _RETRIEVING or kind in _COUNTED
    fits = kind != "lpm_slots" if number is None else (whole and number in range(1, 10_000)) or (kind in _TRAINED and 0 < number < 1)
    if kind not in ARMS or not fits or (steps and kind not in _TRAINED):
        raise InvalidInputError(
            f"there is no arm {name!r}; arms are {', '.join(ARMS)}, rag@K and hybrid@K for K turns of text, lora@RATE for a learning rate, "
            "lora@RATExSTEPS for steps as well, lpm@H for H soft tokens and lpm_slots@N for N slots"
        )
    return kind, number, int(steps) if steps else None
