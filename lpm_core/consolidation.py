"""Consolidation: slots refined by context distillation, the projection frozen.

Self-study (the backbone asks about each turn, and answers with the chunk in its context) gives questions with answers
and the distribution behind each answer token. Gradient descent on the slots alone then brings the soft path to the
same answers. Users are refined side by side; a user's new slots count only if questions held out get no worse.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lpm_core.backbone import Backbone
from lpm_core.chat import ChatFormat
from lpm_core.checkpoint import MemoryWeights
from lpm_core.memory import Page, Turn, UserMemory

if TYPE_CHECKING:
    from transformers import DynamicCache

__all__ = ["ConsolidationRecipe", "ConsolidationReport", "Study", "answer_logits", "distill", "distillation_loss", "self_study"]

_CONTEXT = 512  # tokens of dialogue in front of a self-study question
_TOP = 32  # tokens of the teacher's distribution that count


@dataclass(frozen=True)
class ConsolidationRecipe:
    """How slots are refined. `questions` are drawn per turn of the user; a share `held_out` of them decides on promotion."""

    steps: int = 60
    questions: int = 4
    held_out: float = 0.2
    batch: int = 48
    learning_rate: float = 1e-2
    question_tokens: int = 24
    answer_tokens: int = 16
    temperature: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class ConsolidationReport:
    """What consolidating one user did.

    before, after: share of the held-out self-study questions answered exactly as with the history in context.
    promoted: whether the new slots are in use. seconds: this user's share of the time.
    """

    user_id: str
    before: float
    after: float
    promoted: bool
    questions: int
    seconds: float


@dataclass(frozen=True)
class Study:
    """One self-study question: ids of question and answer, and of the teacher's likeliest tokens at each answer position.

    `top` [A, k] are token ids, `logs` [A, k] their log probabilities.
    """

    question: tuple[int, ...]
    answer: tuple[int, ...]
    top: Tensor
    logs: Tensor


@torch.inference_mode()
def self_study(turns: Sequence[Turn], backbone: Backbone, recipe: ConsolidationRecipe, rng: random.Random) -> list[Study]:
    """Questions about a session's turns as the user might ask them, with the backbone's answers in context."""
    chat = backbone.chat
    rows = [chat.turn(turn.role, chat.content(turn.content))[0] for turn in turns]
    studies: dict[tuple[int, ...], Study] = {}
    for number, turn in enumerate(turns):
        if turn.role != "user":
            continue
        context = [token for row in rows[number : number + 2] for token in row][-_CONTEXT:]
        asked = _sample(backbone, [*context, *chat.markup("<|im_start|>user\n")], recipe, rng)
        whole = _context(rows, number)
        for study in _answers(backbone, whole, asked, recipe):
            studies[study.question] = study
    return list(studies.values())


def _context(rows: Sequence[Sequence[int]], number: int) -> list[int]:
    """The dialogue around a turn, as much as fits: what the teacher reads."""
    first, last, used = number, number + 1, len(rows[number])
    while used < _CONTEXT and (first > 0 or last < len(rows)):
        if first > 0:
            first -= 1
            used += len(rows[first])
        if last < len(rows) and used < _CONTEXT:
            used += len(rows[last])
            last += 1
    return [token for row in rows[first:last] for token in row][-2 * _CONTEXT :]


def _prompt(chat: ChatFormat, question: Sequence[int]) -> list[int]:
    """A question, ready for the answer."""
    return [*chat.turn("user", question)[0], *chat.markup("<|im_start|>assistant\n")]


def _sample(backbone: Backbone, prompt: Sequence[int], recipe: ConsolidationRecipe, rng: random.Random) -> list[list[int]]:
    """Questions that the backbone expects after a prompt, each once."""
    generator = torch.Generator(backbone.device).manual_seed(rng.getrandbits(32))
    count = recipe.questions
    output = backbone.model(input_ids=torch.tensor([list(prompt)], device=backbone.device), use_cache=True, logits_to_keep=1)
    cache: DynamicCache = output.past_key_values
    cache.batch_repeat_interleave(count)
    logits = output.logits[:, -1].repeat_interleave(count, 0)
    asked: list[list[int]] = [[] for _ in range(count)]
    running = [True] * count
    for _ in range(recipe.question_tokens):
        tokens = torch.multinomial((logits.float() / recipe.temperature).softmax(-1), 1, generator=generator)
        for row, token in enumerate(tokens[:, 0].tolist()):
            running[row] = running[row] and token not in backbone.ends
            if running[row]:
                asked[row].append(token)
        if not any(running):
            break
        logits = backbone.model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[:, -1]
    whole = [question for question, cut_off in zip(asked, running, strict=True) if question and not cut_off]
    return [list(question) for question in dict.fromkeys(map(tuple, whole))]


def _answers(backbone: Backbone, context: Sequence[int], asked: Sequence[Sequence[int]], recipe: ConsolidationRecipe) -> Iterator[Study]:
    """The backbone's greedy answers with the dialogue in context, and the distribution behind each token."""
    if not asked:
        return
    chat, device = backbone.chat, backbone.device
    output = backbone.model(input_ids=torch.tensor([list(context)], device=device), use_cache=True, logits_to_keep=1)
    for question in asked:
        cache = copy.deepcopy(output.past_key_values)
        prompt = _prompt(chat, question)
        ids, top, logs = torch.tensor([prompt], device=device), [], []
        answer: list[int] = []
        for _ in range(recipe.answer_tokens):
            likely = backbone.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1].float().log_softmax(-1).topk(_TOP)
            top.append(likely.indices.cpu())
            logs.append(likely.values.cpu())
            answer.append(int(likely.indices[0]))
            if answer[-1] in backbone.ends:
                yield Study(tuple(question), tuple(answer), torch.stack(top), torch.stack(logs))
                break
            ids = torch.tensor([[answer[-1]]], device=device)


def distill(
    memories: Sequence[UserMemory],
    studies: Sequence[Sequence[Study]],
    weights: MemoryWeights,
    backbone: Backbone,
    recipe: ConsolidationRecipe,
    on_step: Callable[[int], None] | None = None,
) -> list[tuple[UserMemory, ConsolidationReport]]:
    """Refine the slots of several users side by side; nothing is stored. Users without questions come back as they were.

    A user whose held-out questions get worse comes back with the slots of before, and `promoted` false.
    """
    begin = time.perf_counter()
    rng = random.Random(recipe.seed)
    device = backbone.device
    config = weights.config
    first = [memory.slots(config.heads, config.slot_size).values for memory in memories]
    counts = [values.shape[1] for values in first]
    start = torch.stack([F.pad(values, (0, 0, 0, max([*counts, 1]) - values.shape[1])) for values in first]).to(device)  # [U, H, N, m]
    mask = torch.arange(start.shape[2], device=device) < torch.tensor(counts, device=device)[:, None]
    learned: list[tuple[int, Study]] = []
    kept: list[list[Study]] = []
    for owner, rows in enumerate(studies):
        rows = rng.sample(list(rows), len(rows))
        cut = max(1, round(recipe.held_out * len(rows))) if len(rows) > 1 else 0
        kept.append(rows[:cut])
        learned += [(owner, study) for study in rows[cut:]]
    network = _Network(weights, backbone)
    before = [network.score(rows, start[owner], mask[owner]) for owner, rows in enumerate(kept)]
    slots = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([slots], lr=recipe.learning_rate)
    queries = network.queries([study for _, study in learned]) if learned else torch.empty(0)
    for step in range(recipe.steps if learned else 0):
        chosen = rng.sample(range(len(learned)), min(recipe.batch * max(1, len(memories) // 4), len(learned)))
        owners = torch.tensor([learned[row][0] for row in chosen], device=device)
        loss = network.loss([learned[row][1] for row in chosen], queries[chosen], slots[owners], mask[owners])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1 - step / recipe.steps)
        optimizer.step()
        if on_step:
            on_step(step + 1)
    refined = slots.detach()
    after = [network.score(rows, refined[owner], mask[owner]) for owner, rows in enumerate(kept)]
    seconds = (time.perf_counter() - begin) / max(1, len(memories))
    results: list[tuple[UserMemory, ConsolidationReport]] = []
    for owner, memory in enumerate(memories):
        promoted = bool(kept[owner]) and after[owner] >= before[owner]
        report = ConsolidationReport(memory.user_id, before[owner][0], after[owner][0], promoted, len(studies[owner]), seconds)
        results.append((_with_slots(memory, refined[owner, :, : counts[owner]].cpu()) if promoted else memory, report))
    return results


def _with_slots(memory: UserMemory, values: Tensor) -> UserMemory:
    """The same pages with other slots [H, N, d_mem]."""
    pages: list[Page] = []
    start = 0
    for page in memory.pages:
        size = page.slots.shape[1]
        pages.append(replace(page, slots=values[:, start : start + size].clone()))
        start += size
    return replace(memory, pages=tuple(pages))


def answer_logits(backbone: Backbone, studies: Sequence[Study], soft: Tensor | None = None) -> Tensor:
    """Logits at the answers' positions, one answer after the other: [sum of A, V]. `soft` [B, P, d] stands before the questions."""
    prompts = [_prompt(backbone.chat, study.question) for study in studies]
    rows = [[*prompt, *study.answer] for prompt, study in zip(prompts, studies, strict=True)]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=backbone.device)
    embeds, before = backbone.embeddings[ids], 0
    if soft is not None:
        embeds, before = torch.cat([soft.to(embeds.dtype), embeds], dim=1), soft.shape[1]
    index = [(row, before + len(prompt) - 1 + place) for row, prompt in enumerate(prompts) for place in range(len(studies[row].answer))]
    chosen = torch.tensor(index, device=ids.device)
    with torch.autocast(backbone.device.type, torch.bfloat16):
        return backbone.logits(backbone.hidden(embeds)[chosen[:, 0], chosen[:, 1]]).float()


def distillation_loss(logits: Tensor, studies: Sequence[Study]) -> Tensor:
    """KL from the teacher's likeliest tokens to `answer_logits`, mean over answer tokens."""
    top = torch.cat([study.top for study in studies]).to(logits.device)
    logs = torch.cat([study.logs for study in studies]).to(logits.device)
    return (logs.exp() * (logs - logits.log_softmax(-1).gather(-1, top))).sum(-1).mean()


class _Network:
    """The frozen parts, and losses of the soft path through them."""

    def __init__(self, weights: MemoryWeights, backbone: Backbone) -> None:
        self.weights, self.backbone = weights, backbone

    @torch.no_grad()
    def queries(self, studies: Sequence[Study]) -> Tensor:
        """e(x) of the questions [Q, query_size]."""
        limit = self.weights.config.query_tokens
        asked = [study.question[-limit:] for study in studies]
        longest = max(map(len, asked))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in asked], device=self.backbone.device)
        inside = torch.arange(longest, device=ids.device) < torch.tensor([len(row) for row in asked], device=ids.device)[:, None]
        encoded: Tensor = self.weights.projection.encode(self.backbone.states(ids).float(), inside)
        return encoded

    def _logits(self, studies: Sequence[Study], queries: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        return answer_logits(self.backbone, studies, self.weights.projection(queries, slots, mask)[0])

    def loss(self, studies: Sequence[Study], queries: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """What the slots are to make small."""
        return distillation_loss(self._logits(studies, queries, slots, mask), studies)

    @torch.no_grad()
    def score(self, studies: Sequence[Study], slots: Tensor, mask: Tensor) -> tuple[float, float]:
        """Share of answers that the soft path gives exactly, and minus their mean loss: what may not get worse."""
        if not studies:
            return 0.0, 0.0
        size = len(studies)
        queries, own, inside = self.queries(studies), slots.expand(size, -1, -1, -1), mask.expand(size, -1)
        best = self._logits(studies, queries, own, inside).argmax(-1).tolist()
        right, start = 0, 0
        for study in studies:
            right += best[start : start + len(study.answer)] == list(study.answer)
            start += len(study.answer)
        return right / size, -self.loss(studies, queries, own, inside).item()
