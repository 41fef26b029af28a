"""Training of the memory weights: SlotWriter and SoftPromptProjection, end to end through the frozen backbone.

Users are written in one pass and asked about what they told; only the soft tokens stand between. First the attention
alone learns to rest on slots of the turn with the answer. Then the loss is the cross-entropy of the answer, and in part
still that of the attention. On conversations of one's own, which nobody asked about, the backbone's self-study asks, and the
answers it gives with the conversation in context are what is learned.

Several processes, started by `torchrun` or `accelerate launch`, work on batches of their own and share the mean of their gradients.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lpm_core.backbone import Backbone, padded
from lpm_core.chat import ChatFormat
from lpm_core.checkpoint import MemoryWeights
from lpm_core.consolidation import ConsolidationRecipe, answer_logits, distillation_loss, self_study
from lpm_core.memory import Turn
from lpm_core.settings import LPMConfig
from lpm_core.training.ahead import made_ahead
from lpm_core.training.backbone import answer_ids, answer_kind, learning_rate, load_optimizers, save_optimizers
from lpm_core.training.corpus import UNKNOWN, Corpus, Person, Question, Tool
from lpm_core.training.dialogues import Message
from lpm_core.training.events import days
from lpm_core.writer import Chunk, cut_chunks, gather_segments

if TYPE_CHECKING:
    from accelerate import Accelerator

    from lpm_core.training.progress import Report

__all__ = ["MemoryRecipe", "memory_recall", "train_memory"]

_MOST_TALK = 20.0  # exchanges of small talk after each fact of a long history: some 32 pages in all
_FIRST_READ = 0.5  # what the loss of the first read counts beside that of all
_STRETCH = 12  # turns of a conversation that are studied at a time
_SELF_STUDY = ConsolidationRecipe(questions=4, batch=16)


@dataclass(frozen=True)
class MemoryRecipe:
    """Training of the memory weights."""

    heads: int = 64
    reads: int = 2
    slot_size: int = 160
    agree: bool = True
    recency: bool = True
    encoder_layers: int = 1
    sentence_tokens: int = 4
    retrieval_steps: int = 400
    retrieval_users: int = 16
    retrieval_questions: int = 24
    retrieval_learning_rate: float = 1e-3
    steps: int = 1000
    users: int = 10
    questions: int = 6
    rows: int = 32
    max_facts: int = 10
    curriculum: float = 0.4
    learning_rate: float = 8e-4
    warmup: int = 50
    attention_weight: float = 0.3
    attention_floor: float = 0.1
    attention_until: float = 0.6
    window_share: float = 0.3
    system_share: float = 0.2
    tool_share: float = 0.15
    unknown_share: float = 0.3
    story_share: float = 0.4
    max_stories: int = 3
    update_share: float = 0.3
    join_share: float = 0.15
    preference_share: float = 0.2
    date_share: float = 0.25
    gleaned_share: float = 0.3
    long_share: float = 0.04
    empty_share: float = 0.03
    conversation_share: float = 0.5
    accumulate: int = 1
    checkpointing: bool = False
    checkpoint_every: int = 100
    probe_people: int = 32
    seed: int = 0

    @property
    def shape(self) -> dict[str, Any]:
        """The fields of LPMConfig that are the recipe's to decide."""
        return {name: getattr(self, name) for name in ("heads", "reads", "slot_size", "agree", "recency", "encoder_layers", "sentence_tokens")}


@dataclass(frozen=True)
class _User:
    """A person as the engine would see them: chunks, and for every slot the number of its turn and the segment's words."""

    person: Person
    chunks: tuple[Chunk, ...]
    slots: tuple[tuple[int, str], ...]

    def evidence(self, question: Question) -> list[bool]:
        """For every slot whether it holds the answer."""
        return self._telling(question.evidence, question.value)

    def way(self, question: Question) -> list[bool]:
        """For every slot whether it holds what leads to the answer: the answer itself, if nothing else must."""
        return self._telling(*question.through) if question.through else self.evidence(question)

    def _telling(self, turn: int | None, value: str) -> list[bool]:
        """Of a turn's segments that which names the value, or all if none does alone."""
        told = [own == turn for own, _ in self.slots]
        named = [own and value.lower() in words for own, (_, words) in zip(told, self.slots, strict=True)]
        return named if any(named) else told


@dataclass(frozen=True)
class _Batch:
    """Questions to users, equally many to each: the slots to be found [Q, 2, 1+N], prompts and answers as ids, and the rows asked of an empty memory."""

    users: tuple[_User, ...]
    questions: tuple[Question, ...]
    evidence: Tensor
    prompts: tuple[list[int], ...] = ()
    answers: tuple[list[int], ...] = ()
    empty: tuple[int, ...] = ()


def _user(person: Person, config: LPMConfig, chat: ChatFormat) -> _User:
    chunks: list[Chunk] = []
    slots: list[tuple[int, str]] = []
    said = person.dated
    for session in sorted(set(person.sessions)):
        numbers = [number for number, mark in enumerate(person.sessions) if mark == session]
        for chunk in cut_chunks([said[number] for number in numbers], chat, config):
            chunks.append(chunk)
            words = [chat.decode(chunk.ids[first:last]).lower() for first, last in chunk.spans]
            slots += zip([numbers[turn] for turn in chunk.turns], words, strict=True)
    return _User(person, tuple(chunks), tuple(slots))


def write(users: Sequence[_User], weights: MemoryWeights, backbone: Backbone, *, addresses: bool = False) -> tuple[Tensor, Tensor]:
    """One-pass slots of several users: [B, G, N, d_mem], padded, and the mask [B, N]. `addresses`: nothing else in the slots, which costs far less."""
    chunks = [chunk for user in users for chunk in user.chunks]
    with torch.no_grad():
        states = backbone.states(padded([chunk.ids for chunk in chunks]).to(backbone.device))
        segments, lengths = gather_segments(states, chunks)
    slots = weights.writer.addresses(segments, lengths) if addresses else weights.writer(segments, lengths)
    counts = [len(user.slots) for user in users]
    most = max(counts)
    stacked = torch.stack([F.pad(part, (0, 0, 0, most - part.shape[1])) for part in slots.split(counts, dim=1)])
    mask = torch.arange(most, device=slots.device) < torch.tensor(counts, device=slots.device)[:, None]
    return stacked.expand(-1, weights.config.banks, -1, -1), mask


def encode(questions: Sequence[Question], users: int, weights: MemoryWeights, backbone: Backbone) -> Tensor:
    """e(x) of the users' questions, equally many of each: [users, questions of each, query_size]."""
    query = weights.queries([backbone.chat.content(question.text) for question in questions], backbone)
    return query.view(users, -1, query.shape[-1])


def read(query: Tensor, slots: Tensor, mask: Tensor, weights: MemoryWeights) -> tuple[Tensor, Tensor]:
    """Soft tokens [Q, H, d] and log attention of each read [Q, R, G, 1+N] for questions [B, Q/B, query_size] of the B users in turn.

    `mask` is [B, N], or [B, Q/B, N] where questions of one user may read different slots.
    """
    soft, _, attention = weights.projection.read(query, slots, mask)
    return soft.flatten(0, 1), attention.flatten(0, 1)


def answer_loss(
    soft: Tensor,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    backbone: Backbone,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of answers after [soft; prompt], one mean per row [Q], and whether every token was the likeliest [Q]."""
    rows = len(answers)
    logits = backbone.answer_logits(prompts, answers, soft).float()
    targets = torch.tensor([token for answer in answers for token in answer], device=logits.device)
    row = torch.tensor([index for index, answer in enumerate(answers) for _ in answer], device=logits.device)
    sums = torch.zeros(rows, device=logits.device).index_add(0, row, F.cross_entropy(logits, targets, reduction="none"))
    wrong = torch.zeros(rows, device=logits.device).index_add(0, row, (logits.argmax(-1) != targets).float())
    return sums / torch.bincount(row, minlength=rows), wrong == 0


def _evidence(questions: Sequence[Question], users: Sequence[_User]) -> Tensor:
    """True at the slots that hold the answer, and at those that lead to it; at the empty slot, if it was never told. [Q, 2, 1+N], questions of the
    users in turn, equally many of each.
    """
    each = len(questions) // len(users)
    evidence = torch.zeros(len(questions), 2, 1 + max(len(user.slots) for user in users), dtype=torch.bool)
    for row, question in enumerate(questions):
        user = users[row // each]
        evidence[row, :, 0] = question.evidence is None
        if question.evidence is not None:
            evidence[row, :, 1 : 1 + len(user.slots)] = torch.tensor([user.evidence(question), user.way(question)])
    return evidence


def _attention_loss(attention: Tensor, evidence: Tensor) -> Tensor:
    """How far reads are from the evidence [Q, 2, 1+N], of log attention [Q, R, G, 1+N]: [Q].

    One read: -log(attention on the answer). Several: -log(what some read has of each piece of evidence), and in part of what the first has of any.
    """
    evidence = evidence.to(attention.device)
    wanted = evidence[:, 0] if attention.shape[1] == 1 else evidence.any(1)
    first = -attention[:, 0].masked_fill(~wanted[:, None], float("-inf")).logsumexp(-1).mean(-1)
    return first if attention.shape[1] == 1 else _FIRST_READ * first - _found(attention, evidence).clamp(min=1e-9).log().mean(1)


def _found(attention: Tensor, evidence: Tensor) -> Tensor:
    """The probability that some read rests on each piece of evidence, the mean over heads: [Q, 2], of log attention [Q, R, G, 1+N]."""
    shares = torch.einsum("qrgn,qen->qerg", attention.exp(), evidence.to(attention))
    return 1 - (1 - shares).clamp(min=0).prod(2).mean(-1)


def _prompt(question: Question, window: Sequence[Message], chat: ChatFormat, tools: Sequence[Tool] = ()) -> list[int]:
    """The window's turns and the question in the chat format, ready for the answer."""
    messages = [{"role": role, "content": text} for role, text in (*window, ("user", question.text))]
    return chat.render(messages, tools=[tool.schema for tool in tools])


@torch.no_grad()
def memory_recall(people: Sequence[Person], weights: MemoryWeights, backbone: Backbone) -> dict[str, float]:
    """Share of answers recalled exactly from one-pass slots (teacher-forced greedy), and of attention on the evidence."""
    scores: dict[str, list[float]] = {
        kind: [] for kind in ("known", "open", "untold", "update", "earlier", "story", "joined", "dated", "preference", "attention")
    }
    chat = backbone.chat
    for start in range(0, len(people), 8):
        users = [_user(person, weights.config, chat) for person in people[start : start + 8]]
        questions = [question for user in users for question in user.person.questions]
        with torch.autocast(backbone.device.type, torch.bfloat16):
            slots, mask = write(users, weights, backbone)
            query = encode(questions, len(users), weights, backbone)
            soft, attention = read(query, slots, mask, weights)
            _, right = answer_loss(soft, [_prompt(q, (), chat) for q in questions], [answer_ids(q, chat) for q in questions], backbone)
        found = _found(attention.float(), _evidence(questions, users)).mean(1)
        for question, answered, attended in zip(questions, right.tolist(), found.tolist(), strict=True):
            scores[answer_kind(question)].append(answered)
            scores["attention"].append(attended)
    return {kind: sum(values) / len(values) for kind, values in scores.items() if values}


def train_memory(
    recipe: MemoryRecipe,
    backbone: Backbone,
    dialogues: Sequence[Sequence[Message]],
    folder: Path,
    report: Report,
    weights: MemoryWeights | None = None,
    conversations: Sequence[Sequence[Message]] = (),
    accelerator: Accelerator | None = None,
    workers: int = 0,
) -> MemoryWeights:
    """Train memory weights for a backbone into `folder`, from `weights` or new ones; continues from the last checkpoint there.

    conversations: of one's own, to learn from by self-study in a share of the batches; dialogues are small talk. accelerator: of one process
    among several, which all call this; the first alone writes. workers: processes that make batches ahead; 0 makes them in this one.
    """
    corpus = Corpus("train", dialogues)
    processes, own = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    state_file, moments, saved = folder / "memory.state.json", folder / "memory.optimizer.safetensors", folder / "memory"
    state = json.loads(state_file.read_text()) if state_file.exists() else {"step": 0}
    if state["step"]:
        weights = MemoryWeights.load(saved, backbone)
    elif weights is None:
        weights = MemoryWeights.new(backbone, seed=recipe.seed, **recipe.shape)
    weights.to(backbone.device).requires_grad_(True)
    parameters = [*weights.writer.parameters(), *weights.projection.parameters()]
    _keep_apart(weights)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    if moments.exists():
        load_optimizers([optimizer], moments)
    total = recipe.retrieval_steps + recipe.steps
    report.say(f"memory weights of {sum(p.numel() for p in parameters):,} parameters, from step {state['step']} of {total}")
    unseen = Corpus("validation")
    probes = [*unseen.people(recipe.seed, recipe.probe_people, 8), *unseen.people(recipe.seed, recipe.probe_people // 2, 3, stories=3)]
    probes += [*unseen.people(recipe.seed, recipe.probe_people // 2, 8, updates=0.5), *unseen.people(recipe.seed, recipe.probe_people // 4, 8, joins=3)]
    probes += [*unseen.people(recipe.seed, recipe.probe_people // 4, 8, preferences=3), *unseen.people(recipe.seed, recipe.probe_people // 4, 6, dates=3)]
    if recipe.checkpointing:
        _recompute(backbone, True)
    parts = [own * recipe.accumulate + part for part in range(recipe.accumulate)]  # this process's batches of a step
    make = partial(_made, recipe, corpus, weights.config, backbone.chat, parts, bool(conversations))
    made = made_ahead(make, range(state["step"], total), workers)
    for number, batches in zip(report.steps(state["step"], total, "memory"), made, strict=True):
        step = number - recipe.retrieval_steps
        optimizer.zero_grad(set_to_none=True)
        rate = (
            recipe.retrieval_learning_rate * learning_rate(number, recipe.retrieval_steps, recipe.warmup)
            if step < 0
            else recipe.learning_rate * learning_rate(step, recipe.steps, recipe.warmup)
        )
        share = recipe.attention_floor + (recipe.attention_weight - recipe.attention_floor) * max(0.0, 1 - step / (recipe.attention_until * recipe.steps))
        for part, batch in zip(parts, batches, strict=True):
            if batch is None:
                loss = _conversation_loss(conversations, weights, backbone, _stream("conversation", recipe, step, part))
                report.value(distillation=loss.item())
            elif step < 0:  # first the attention alone
                loss = _retrieval_loss(batch, weights, backbone)
                report.value(attention=loss.item())
            else:
                answers, attention, right = _losses(recipe, batch, weights, backbone)
                loss = answers + share * attention
                report.value(loss=answers.item(), attention=attention.item(), right=right)
            (loss / len(parts)).backward()  # type: ignore[no-untyped-call]
        if accelerator and processes > 1:
            _share_gradients(parameters, accelerator)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        if own == 0 and ((number + 1) % recipe.checkpoint_every == 0 or number + 1 == total):
            weights.save(saved, backbone, training=asdict(recipe))
            save_optimizers([optimizer], moments)
            state_file.write_text(json.dumps({"step": number + 1, "recipe": asdict(recipe)}))
            figures = memory_recall(probes, weights, backbone)
            report.say("recall from memory, 8 facts, validation split: " + "  ".join(f"{kind} {value:.2f}" for kind, value in figures.items()))
    if recipe.checkpointing:
        _recompute(backbone, False)
    if accelerator:
        accelerator.wait_for_everyone()
    return weights


def _share_gradients(parameters: Sequence[Tensor], accelerator: Accelerator) -> None:
    """Give every process the mean gradient of all; what has none in any process stays without, so that the optimizer leaves it alone."""
    has = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=accelerator.device)
    anywhere = accelerator.reduce(has, "sum").tolist()
    for parameter in (parameter for parameter, count in zip(parameters, anywhere, strict=True) if count):
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        parameter.grad = accelerator.reduce(gradient, "mean")


def _recompute(backbone: Backbone, on: bool) -> None:
    """Whether the backbone's activations are computed anew on the way back; only in training mode, which changes nothing else: Qwen3 has no dropout."""
    model: Any = backbone.model
    name = f"checkpointing_{'enable' if on else 'disable'}"
    call = getattr(model, f"activation_{name}", None) or getattr(model, f"gradient_{name}")  # the second name is that of older releases
    call(*([{"use_reentrant": False}] if on else []))
    model.train(on)


def _stream(kind: str, recipe: MemoryRecipe, step: int, part: int) -> random.Random:
    """Random numbers of one batch of a step, the same in however many processes the batches are made."""
    return random.Random(f"{kind}/{recipe.seed}/{step}" + (f"/{part}" if part else ""))


def _conversation_loss(conversations: Sequence[Sequence[Message]], weights: MemoryWeights, backbone: Backbone, rng: random.Random) -> Tensor:
    """Distillation on a stretch of one conversation: what the backbone asks and answers with it in context, answered from the slots alone."""
    said = rng.choice(conversations)
    start = rng.randrange(max(1, len(said) - _STRETCH + 1))
    stretch = tuple(said[start : start + _STRETCH])
    (at,) = days(rng, 1)
    turns = [Turn(str(number), "", "", "user" if role == "user" else "assistant", text, at, "user") for number, (role, text) in enumerate(stretch)]
    studies = self_study(turns, backbone, _SELF_STUDY, rng)
    user = _user(Person(stretch, (0,) * len(stretch), (), times=(at,)), weights.config, backbone.chat)
    if not studies or not user.chunks:
        return next(weights.parameters()).sum() * 0.0
    with torch.autocast(backbone.device.type, torch.bfloat16):
        slots, mask = write([user], weights, backbone)
        soft, _ = weights.projection(weights.queries([study.question for study in studies], backbone)[None], slots, mask)
        return distillation_loss(answer_logits(backbone, studies, soft[0]), studies)


def _keep_apart(weights: MemoryWeights) -> None:
    """Keys learn from the address in a slot and values from its words, so that what is found does not hang on what is said."""
    config = weights.config
    if config.address_size:
        words = (torch.arange(config.slot_size) < config.slot_size - config.address_size).float()[:, None]
        weights.projection.w_k.register_hook(lambda gradient: gradient * (1 - words).to(gradient.device))  # type: ignore[no-untyped-call]
        weights.projection.w_v.register_hook(lambda gradient: gradient * words.to(gradient.device))  # type: ignore[no-untyped-call]


def _window(recipe: MemoryRecipe, corpus: Corpus, rng: random.Random) -> list[Message]:
    """What stands between soft tokens and question: now and then a system prompt, now and then some small talk."""
    window: list[Message] = [("system", rng.choice(corpus.systems))] if rng.random() < recipe.system_share else []
    if rng.random() < recipe.window_share:
        window += corpus.talk(rng) * rng.choice((1, 1, 2))
    return window


def _person(recipe: MemoryRecipe, corpus: Corpus, facts: int, rng: random.Random, *, talk: float, questions: int, tools: int = 0) -> Person:
    """A person who tells `facts` facts, or fewer and some stories; some facts change, some are told of others by their names, some talk is asked about."""
    options: dict[str, Any] = {"updates": recipe.update_share if rng.random() < 0.5 else 0.0}
    if not tools:
        options |= {"stories": rng.randint(1, recipe.max_stories) if rng.random() < recipe.story_share else 0}
        options |= {"joins": rng.randint(1, 2) if rng.random() < recipe.join_share else 0}
        options |= {"preferences": rng.randint(1, 2) if rng.random() < recipe.preference_share else 0}
        options |= {"dates": rng.randint(1, 3) if rng.random() < recipe.date_share else 0}
        options |= {"gleaned": rng.randint(1, 2) if rng.random() < recipe.gleaned_share else 0}
    told = max(1, facts // 2) if options.get("stories") else facts
    return corpus.person(rng, told, talk=talk, questions=questions, unknown=recipe.unknown_share, tools=tools, **options)


def _made(
    recipe: MemoryRecipe, corpus: Corpus, config: LPMConfig, chat: ChatFormat, parts: Sequence[int], conversations: bool, number: int
) -> list[_Batch | None]:
    """A step's batches of fresh users; None in place of one that is to be a conversation of one's own."""
    step = number - recipe.retrieval_steps
    if step < 0:
        return [_retrieval_batch(recipe, corpus, config, chat, _stream("retrieval", recipe, number, part)) for part in parts]
    streams = [_stream("memory", recipe, step, part) for part in parts]
    own = [conversations and rng.random() < recipe.conversation_share for rng in streams]
    return [None if talk else _answer_batch(recipe, corpus, config, chat, step, rng) for rng, talk in zip(streams, own, strict=True)]


def _length(recipe: MemoryRecipe, users: int, talk: float, rng: random.Random) -> tuple[int, float]:
    """How many users a batch has, and the most small talk after each fact: now and then few users with long histories."""
    return (max(1, users // 8), _MOST_TALK) if rng.random() < recipe.long_share else (users, talk)


def _tools(recipe: MemoryRecipe, rng: random.Random) -> int:
    """How many tools a person has at hand, if any."""
    return rng.randint(1, 3) if rng.random() < recipe.tool_share else 0


def _retrieval_batch(recipe: MemoryRecipe, corpus: Corpus, config: LPMConfig, chat: ChatFormat, rng: random.Random) -> _Batch:
    people = []
    count, talk = _length(recipe, recipe.retrieval_users, 1.5, rng)
    for _ in range(count):
        facts, tools = rng.randint(2, recipe.max_facts + 2), _tools(recipe, rng)
        people.append(_person(recipe, corpus, facts, rng, talk=talk * rng.random(), questions=recipe.retrieval_questions, tools=tools))
    users = [_user(person, config, chat) for person in people]
    questions = [question for person in people for question in person.questions]
    return _Batch(tuple(users), tuple(questions), _evidence(questions, users))


def _retrieval_loss(batch: _Batch, weights: MemoryWeights, backbone: Backbone) -> Tensor:
    """Loss of the attention alone: nothing passes through the backbone's upper layers, and one read needs no more than addresses."""
    with torch.autocast(backbone.device.type, torch.bfloat16):
        slots, mask = write(batch.users, weights, backbone, addresses=weights.projection.hop is None)
        attention = weights.projection.attention(encode(batch.questions, len(batch.users), weights, backbone), slots, mask).flatten(0, 1)
    return _attention_loss(attention, batch.evidence).mean()


def _alike(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of rows in groups of at most `most`, none longer than half as long again as its group's shortest: little is padding."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not groups or len(groups[-1]) == most or lengths[row] > 1.5 * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return groups


def _answer_batch(recipe: MemoryRecipe, corpus: Corpus, config: LPMConfig, chat: ChatFormat, step: int, rng: random.Random) -> _Batch:
    progress = min(1.0, step / (recipe.curriculum * recipe.steps))
    most = 2 + round(progress * (recipe.max_facts - 2))
    facts = rng.randint((most + 1) // 2, most)
    count, talk = _length(recipe, recipe.users, 1.5 * progress, rng)
    kits = [_tools(recipe, rng) for _ in range(count)]
    talk *= rng.random()
    people = [_person(recipe, corpus, facts, rng, talk=talk, questions=recipe.questions, tools=kit) for kit in kits]
    users = [_user(person, config, chat) for person in people]
    questions = [question for person in people for question in person.questions]
    empty = [row for row, question in enumerate(questions) if rng.random() < recipe.empty_share and question.tool is None]
    for row in empty:
        questions[row] = Question(questions[row].text, UNKNOWN, questions[row].key, None)
    kits_shown = [person.tools for person in people for _ in person.questions]
    prompts = [_prompt(question, _window(recipe, corpus, rng), chat, tools) for question, tools in zip(questions, kits_shown, strict=True)]
    answers = [answer_ids(question, chat) for question in questions]
    return _Batch(tuple(users), tuple(questions), _evidence(questions, users), tuple(prompts), tuple(answers), tuple(empty))


def _losses(recipe: MemoryRecipe, batch: _Batch, weights: MemoryWeights, backbone: Backbone) -> tuple[Tensor, Tensor, float]:
    """Losses of answers and of attention on one batch, and the share of answers right."""
    with torch.autocast(backbone.device.type, torch.bfloat16):
        slots, mask = write(batch.users, weights, backbone)
        each = len(batch.questions) // len(batch.users)
        mask = mask[:, None].repeat(1, each, 1)
        for row in batch.empty:
            mask[row // each, row % each] = False
        soft, attention = read(encode(batch.questions, len(batch.users), weights, backbone), slots, mask, weights)
        lengths = [len(soft[0]) + len(prompt) + len(answer) for prompt, answer in zip(batch.prompts, batch.answers, strict=True)]
        parts = _alike(lengths, recipe.rows)
        results = [answer_loss(soft[part], [batch.prompts[row] for row in part], [batch.answers[row] for row in part], backbone) for part in parts]
        losses, right = (torch.cat(column) for column in zip(*results, strict=True))
    return losses.mean(), _attention_loss(attention, batch.evidence).mean(), right.float().mean().item()
