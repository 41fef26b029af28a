"""Consolidation: slots refined by context distillation, the projection frozen.

Self-study (the backbone asks about what was said, and answers with it in its context) gives questions with answers
and the distribution behind each answer token. Gradient descent on the slots alone then brings the soft path to the
same answers. Users are refined side by side; a user's new slots count only if questions held out get no worse.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
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

__all__ = ["ConsolidationRecipe", "ConsolidationReport", "Study", "answer_logits", "distill", "distillation_loss", "labelled", "self_study"]

_CONTEXT = 1024  # tokens of dialogue in front of a self-study question, at most
_ROUNDS = 4  # questions that one questioner asks in turn
_EVEN = 0.2  # of the mean loss: what every study counts at least
_TOP = 32  # tokens of the teacher's distribution that count


@dataclass(frozen=True)
class ConsolidationRecipe:
    """How slots are refined. `questions` are drawn per turn of the user, at most 4 times `batch` of a stretch of the history; a share `held_out` of them decides on promotion. What slots answer
    unlike the teacher is learned from most often.

    starts: how questions begin, one as often as another, for left to itself a model goes on telling, or asks what nobody told. Name some of the user's language.
    """

    steps: int = 12
    questions: int = 8
    held_out: float = 0.2
    batch: int = 24
    learning_rate: float = 1e-2
    question_tokens: int = 24
    answer_tokens: int = 16
    temperature: float = 0.8
    starts: tuple[str, ...] = (
        "What is my", "What was my", "What do I", "What did I", "What am I", "Which", "Where is my", "Where do I", "Where did I", "When is my", "When do I",
        "When did I", "Who is my", "Who did I", "How many", "How do I", "Do I", "Tell me my",
    )  # fmt: skip
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
    """Questions about a user's turns as the user might ask them, with the backbone's answers in context.

    Those that it answers in the same words without the context teach little about the user: they are at most a third. A history longer than
    the context is studied in parts, and then they are left out: "I don't know." of one part says nothing of the others.
    """
    asked = _ROUNDS * (recipe.question_tokens + recipe.answer_tokens + len(_prompt(backbone.chat, ())) + 2)
    parts = _parts(turns, backbone.chat, min(_CONTEXT, max(backbone.window // 2, backbone.window - asked)))
    studies: dict[tuple[int, ...], Study] = {}
    for context, told in parts:
        for study in _interview(backbone, context, told * recipe.questions, recipe, rng):
            studies.setdefault(study.question, study)
    found = list(studies.values())
    batches = [found[start : start + recipe.batch] for start in range(0, len(found), recipe.batch)]
    anyway = [same for batch in batches for same in _exact(answer_logits(backbone, batch), batch)]
    telling, rest = ([study for study, same in zip(found, anyway, strict=True) if same is kind] for kind in (False, True))
    return [*telling, *rng.sample(rest, min(len(rest), len(telling) // 2 if len(parts) == 1 else 0))]


def labelled(examples: Sequence[tuple[str, str]], chat: ChatFormat) -> list[Study]:
    """Questions whose answers are given: a teacher who is sure of every token."""
    answers = [(*chat.content(answer), *chat.markup("<|im_end|>")) for _, answer in examples]
    return [
        Study(tuple(chat.content(question)), answer, torch.tensor(answer)[:, None], torch.zeros(len(answer), 1))
        for (question, _), answer in zip(examples, answers, strict=True)
    ]


def _parts(turns: Sequence[Turn], chat: ChatFormat, most: int) -> list[tuple[list[int], int]]:
    """Stretches of the dialogue of at most `most` tokens, the latest first, and how many of its user's turns each is to be asked about.

    Together they are all of it. One that is shorter goes on into what another is asked about: what was said later may be another answer.
    """
    rows = [chat.turn(turn.role, chat.content(turn.dated))[0][-most:] for turn in turns]
    stop, cuts = len(rows), [len(rows)]
    while stop:
        room = most
        while stop and len(rows[stop - 1]) <= room:
            stop -= 1
            room -= len(rows[stop])
        cuts.append(stop)
    parts: list[tuple[list[int], int]] = []
    for stop, start in pairwise(cuts):
        context = [token for row in rows[start:stop] for token in row]
        for row in rows[stop:]:
            if len(context) + len(row) > most:
                break
            context += row
        parts.append((context, sum(turn.role == "user" for turn in turns[start:stop])))
    return [(context, told) for context, told in parts if told]


def _prompt(chat: ChatFormat, question: Sequence[int]) -> list[int]:
    """A question, ready for the answer."""
    return [*chat.turn("user", question)[0], *chat.markup("<|im_start|>assistant\n")]


_Chain = Generator[int, Tensor, None]
"""Gives the next token of a dialogue, and takes the logits [V] after it."""


def _interview(backbone: Backbone, context: Sequence[int], count: int, recipe: ConsolidationRecipe, rng: random.Random) -> list[Study]:
    """About `count` questions after a context, but at most what `recipe.batch` questioners side by side ask; each hears `_ROUNDS` answers.

    They share the context's keys and values: each step is one row of tokens, one of each questioner, who sees the context and his own alone.
    """
    generator = torch.Generator(backbone.device).manual_seed(rng.getrandbits(32))
    starts = [backbone.chat.content(text) for text in recipe.starts]
    found: list[Study] = []
    chains = [_questioner(backbone, starts, recipe, generator, found) for _ in range(min(recipe.batch, -(-count // _ROUNDS)))]
    tokens = [next(chain) for chain in chains]
    model, device = backbone.model.model, backbone.device
    cache: DynamicCache = model(input_ids=torch.tensor([list(context)], device=device), use_cache=True).past_key_values
    owners = torch.full((len(context),), -1, device=device)  # of each column: the questioner whose token it is, -1 for the context
    running, place = list(range(len(chains))), len(context)
    while running:
        asking = torch.tensor(running, device=device)
        owners = torch.cat([owners, asking])
        hidden = (owners != -1) & (owners != asking[:, None])  # [asking, T]
        mask = torch.zeros(hidden.shape, dtype=model.dtype, device=device).masked_fill(hidden, torch.finfo(model.dtype).min)
        ids, places = torch.tensor([[tokens[number] for number in running]], device=device), torch.full((1, len(running)), place, device=device)
        output = model(input_ids=ids, position_ids=places, attention_mask=mask[None, None], past_key_values=cache, use_cache=True)
        still = []
        for number, logits in zip(running, backbone.logits(output.last_hidden_state[0]).float(), strict=True):
            try:
                tokens[number] = chains[number].send(logits)
                still.append(number)
            except StopIteration:
                pass
        running, place = still, place + 1
    return found


def _questioner(backbone: Backbone, starts: Sequence[list[int]], recipe: ConsolidationRecipe, generator: torch.Generator, found: list[Study]) -> _Chain:
    """Asks and answers by turns, for who has asked asks on; whole questions with whole answers are added to `found`."""
    chat = backbone.chat
    for _ in range(_ROUNDS):
        likely = yield from _said(chat.markup("<|im_start|>user\n"))
        question: list[int] = []
        if starts:
            question += starts[int(torch.randint(len(starts), (1,), generator=generator, device=generator.device))]
            likely = yield from _said(question)
        while len(question) <= recipe.question_tokens:
            token = int(torch.multinomial((likely / recipe.temperature).softmax(-1), 1, generator=generator))
            if token in backbone.ends:
                break
            question.append(token)
            likely = yield token
        likely = yield from _said([*chat.markup("<|im_end|>\n"), *chat.markup("<|im_start|>assistant\n")])
        answer: list[int] = []
        top, logs = [], []
        while len(answer) < recipe.answer_tokens:
            best = likely.log_softmax(-1).topk(_TOP)
            top.append(best.indices.cpu())
            logs.append(best.values.cpu())
            answer.append(int(best.indices[0]))
            if answer[-1] in backbone.ends:
                break
            likely = yield answer[-1]
        if 0 < len(question) <= recipe.question_tokens and answer[-1] in backbone.ends:
            found.append(Study(tuple(question), tuple(answer), torch.stack(top), torch.stack(logs)))
        yield from _said(chat.markup("<|im_end|>\n"))


def _said(ids: Sequence[int]) -> Generator[int, Tensor, Tensor]:
    """Says fixed tokens; returns the logits after the last."""
    likely = torch.empty(0)
    for token in ids:
        likely = yield token
    return likely


def _exact(logits: Tensor, studies: Sequence[Study]) -> list[bool]:
    """For each study whether `answer_logits` give its answer greedily."""
    best = logits.argmax(-1).tolist()
    ends = list(accumulate(len(study.answer) for study in studies))
    return [best[end - len(study.answer) : end] == list(study.answer) for end, study in zip(ends, studies, strict=True)]


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
    first = [memory.slots(config.banks, config.slot_size).values for memory in memories]
    counts = [values.shape[1] for values in first]
    start = torch.stack([F.pad(values, (0, 0, 0, max([*counts, 1]) - values.shape[1])) for values in first]).to(device)  # [U, G, N, m]
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
    asked = [study for _, study in learned]
    owners = torch.tensor([owner for owner, _ in learned], dtype=torch.long, device=device)
    queries = network.queries(asked) if learned else torch.empty(0)
    unlike = network.unlike(asked, queries, start, mask, owners)
    generator = torch.Generator().manual_seed(recipe.seed)
    for step in range(recipe.steps if learned else 0):
        chosen = torch.multinomial(unlike, min(recipe.batch * max(1, len(memories) // 4), len(learned)), generator=generator).tolist()
        optimizer.zero_grad(set_to_none=True)
        tokens = sum(len(asked[row].answer) for row in chosen)
        for part in _alike(chosen, asked):
            studied = [asked[row] for row in part]
            share = sum(len(study.answer) for study in studied) / tokens
            loss = share * network.loss(studied, queries[part], slots[owners[part]], mask[owners[part]])
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


def _alike(rows: Sequence[int], studies: Sequence[Study], most: int = 48) -> list[list[int]]:
    """Rows in groups of at most `most`, alike in length, so that little is padding."""
    ordered = sorted(rows, key=lambda row: len(studies[row].question) + len(studies[row].answer))
    return [ordered[start : start + most] for start in range(0, len(ordered), most)]


def _with_slots(memory: UserMemory, values: Tensor) -> UserMemory:
    """The same pages with other slots [G, N, d_mem]."""
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
    with torch.autocast(backbone.device.type, torch.bfloat16):
        return backbone.answer_logits(prompts, [study.answer for study in studies], soft).float()


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
        return self.weights.queries([study.question for study in studies], self.backbone)

    def _logits(self, studies: Sequence[Study], queries: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        return answer_logits(self.backbone, studies, self.weights.projection(queries, slots, mask)[0])

    def loss(self, studies: Sequence[Study], queries: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """What the slots are to make small."""
        return distillation_loss(self._logits(studies, queries, slots, mask), studies)

    @torch.no_grad()
    def unlike(self, studies: Sequence[Study], queries: Tensor, slots: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
        """How often each study is to be learned from, next to the others [Q]: by how unlike the teacher's the first answers are."""
        losses = torch.zeros(len(studies))
        for part in _alike(range(len(studies)), studies):
            rows = [studies[row] for row in part]
            logits = self._logits(rows, queries[part], slots[owners[part]], mask[owners[part]])
            for row, answer in zip(part, torch.split(logits, [len(study.answer) for study in rows]), strict=True):
                losses[row] = distillation_loss(answer, [studies[row]])
        return losses + _EVEN * losses.mean() + 1e-9

    @torch.no_grad()
    def score(self, studies: Sequence[Study], slots: Tensor, mask: Tensor) -> tuple[float, float]:
        """Share of answers that the soft path gives exactly, and minus their mean loss: what may not get worse."""
        if not studies:
            return 0.0, 0.0
        size = len(studies)
        queries, own, inside = self.queries(studies), slots.expand(size, -1, -1, -1), mask.expand(size, -1)
        logits = self._logits(studies, queries, own, inside)
        return sum(_exact(logits, studies)) / size, -distillation_loss(logits, studies).item()
