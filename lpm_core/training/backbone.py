"""Training of the embedded backbone: a small Qwen3 that learns to read people's dialogues and to answer about them.

Answer tokens weigh more than the rest, and contexts grow from one fact to many: without both, a model of this size
does not learn to look things up in its context at all.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lpm_core.chat import ChatFormat
from lpm_core.exceptions import InvalidInputError
from lpm_core.training.ahead import made_ahead
from lpm_core.training.corpus import Corpus, Person, Question
from lpm_core.training.dialogues import Message
from lpm_core.training.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3ForCausalLM

    from lpm_core.training.progress import Report

__all__ = ["BackboneRecipe", "answer_ids", "answer_kind", "context_recall", "learning_rate", "load_optimizers", "save_optimizers", "train_backbone"]

_log = logging.getLogger(__name__)
_IGNORE = -100


@dataclass(frozen=True)
class BackboneRecipe:
    """Size and training of the embedded Qwen3. Lengths are in tokens.

    frozen_layers: so many lower layers, and with them the embeddings, stay as they are, so that what memory reads there stays true.
    """

    vocab_size: int = 4096
    hidden_size: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 64
    intermediate_size: int = 768
    window: int = 1024
    rope_theta: float = 1e6
    steps: int = 2850
    batch_tokens: int = 6000
    learning_rate: float = 2e-3
    warmup: int = 100
    context_weight: float = 0.02
    context_share: float = 0.3
    max_facts: int = 12
    curriculum: float = 0.35
    dialogue_share: float = 0.15
    dialogue_weight: float = 0.1
    questions: int = 14
    unknown_share: float = 0.2
    update_share: float = 0.35
    story_share: float = 0.55
    max_stories: int = 4
    join_share: float = 0.25
    preference_share: float = 0.2
    date_share: float = 0.25
    gleaned_share: float = 0.5
    tool_share: float = 0.12
    frozen_layers: int = 0
    notes_share: float = 0.12
    tokenizer_people: int = 3000
    checkpoint_every: int = 100
    probe_people: int = 32
    seed: int = 0


def _turn(chat: ChatFormat, role: str, content: str) -> list[int]:
    return chat.turn(role, chat.content(content))[0]


def answer_ids(question: Question, chat: ChatFormat) -> list[int]:
    """What the assistant says to a question, with the end of its turn: the answer, or a tool call in Qwen3's format."""
    if question.tool is None:
        return [*chat.content(question.answer), *chat.markup("<|im_end|>")]
    call = json.loads(question.answer)
    text = f'{{"name": {json.dumps(call["name"])}, "arguments": {chat.arguments(call["arguments"])}}}'
    return [*chat.markup("<tool_call>\n"), *chat.text(text), *chat.markup("\n</tool_call>"), *chat.markup("<|im_end|>")]


def answer_kind(question: Question) -> str:
    """What a question's score counts for: its kind, and of those about one fact, whether the value is of an open vocabulary."""
    if question.evidence is None:
        return "untold"
    return ("open" if question.open_vocabulary else "known") if question.kind == "single" else question.kind


def _lesson(person: Person, chat: ChatFormat, system: str | None, context_weight: float) -> tuple[list[int], list[float]]:
    """A dialogue followed by its questions and answers: token ids and their weights in the loss."""
    said = person.dated
    first = [{"role": role, "content": text} for role, text in (*([("system", system)] if system else []), *said[:1])]
    ids = chat.render(first, tools=[tool.schema for tool in person.tools], add_generation_prompt=False)
    for role, text in said[1:]:
        ids += _turn(chat, role, text)
    weights = [context_weight] * len(ids)

    def add(part: Sequence[int], weight: float) -> None:
        ids.extend(part)
        weights.extend([weight] * len(part))

    start, line_end = chat.markup("<|im_start|>assistant\n"), chat.markup("\n")
    for question in person.questions:
        add([*_turn(chat, "user", question.text), *start], context_weight)
        add(answer_ids(question, chat), 1.0)
        add(line_end, context_weight)
        if question.tool:
            response = [*chat.markup("<tool_response>\n"), *chat.content(question.result), *chat.markup("\n</tool_response>")]
            add([*chat.markup("<|im_start|>user\n"), *response, *chat.markup("<|im_end|>\n"), *start], context_weight)
            add([*chat.content(question.reply), *chat.markup("<|im_end|>")], 0.5)
            add(line_end, context_weight)
    return ids, weights


def _noted(person: Person, notes: str, talk: Sequence[Message], rng: random.Random) -> tuple[str, Person]:
    """The same lesson with what was said as lines of a system prompt, as memories that give text write it; at most some talk is left as turns."""
    lines = [f"- {text}" for role, text in person.dated if role == "user" or rng.random() < 0.3]
    rng.shuffle(lines)
    return notes.replace("{lines}", "\n".join(lines)), replace(person, turns=tuple(talk), times=())


def _dialogue(corpus: Corpus, chat: ChatFormat, weight: float, length: int, rng: random.Random) -> tuple[list[int], list[float]]:
    """Human dialogues, one after the other, cut at `length` tokens."""
    ids: list[int] = []
    while len(ids) < length:
        for role, text in rng.choice(corpus.dialogues):
            ids += _turn(chat, role, text)
    return ids[:length], [weight] * length


def _batch(rows: Sequence[tuple[list[int], list[float]]], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and weights, both [B, T]."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [pad] * (length - len(row)) for row, _ in rows])
    weights = torch.tensor([row + [0.0] * (length - len(row)) for _, row in rows])
    return ids, weights


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def _new_model(recipe: BackboneRecipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(recipe.seed)
    vocabulary = tokenizer.get_vocab()
    config = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head_dim,
        max_position_embeddings=recipe.window,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=vocabulary["<|im_end|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    return Qwen3ForCausalLM(config)


def _optimizers(model: Qwen3ForCausalLM, recipe: BackboneRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms: on the same batches the loss falls faster than with AdamW alone."""
    learned = [parameter for parameter in model.model.layers.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in learned if parameter.ndim == 2]
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and all(parameter is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=recipe.learning_rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    ]


def _loss(model: Qwen3ForCausalLM, ids: Tensor, weights: Tensor, share: float) -> Tensor:
    """Weighted next-token cross-entropy on all answers and a random `share` of the other tokens: the output layer is dear."""
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]  # [B, T-1, d]
    targets, weight = ids[:, 1:], weights[:, 1:]
    drawn = torch.rand(weight.shape, device=weight.device) < share
    weight = torch.where(weight < 1, weight * drawn / share, weight)
    chosen = weight > 0
    logits = model.lm_head(hidden[chosen]).float()  # [tokens, vocabulary]
    losses = F.cross_entropy(logits, targets[chosen], reduction="none")
    return (losses * weight[chosen]).sum() / weight[chosen].sum()


def train_backbone(recipe: BackboneRecipe, dialogues: Sequence[Sequence[Message]], folder: Path, report: Report, device: str = "cpu", workers: int = 0) -> Path:
    """Train tokenizer and backbone into `folder`; continues from the last checkpoint there. Returns the model's folder.

    workers: processes that make batches ahead; 0 makes them in this one.
    """
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    corpus = Corpus("train", dialogues)
    model_folder = folder / "backbone"
    state_file = folder / "backbone.state.json"
    if (model_folder / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(model_folder)
    else:
        report.say("learning the tokenizer")
        tokenizer = train_tokenizer(corpus.texts(random.Random(recipe.seed), recipe.tokenizer_people), recipe.vocab_size)
        tokenizer.save_pretrained(model_folder)
    chat = ChatFormat(tokenizer)
    state = json.loads(state_file.read_text()) if state_file.exists() else {"step": 0}
    if state["step"] >= recipe.steps:
        return model_folder
    if recipe.frozen_layers and (not state["step"] or recipe.frozen_layers >= recipe.layers):
        raise InvalidInputError(
            f"frozen_layers={recipe.frozen_layers}: some of the {recipe.layers} layers must learn, and what is frozen must be trained already"
        )
    model = Qwen3ForCausalLM.from_pretrained(model_folder) if state["step"] else _new_model(recipe, tokenizer)
    model.to(device).train()  # type: ignore[arg-type]
    for lower in (model.model.embed_tokens, *model.model.layers[: recipe.frozen_layers]) if recipe.frozen_layers else ():
        lower.requires_grad_(False)
    optimizers = _optimizers(model, recipe)
    moments = folder / "backbone.optimizer.safetensors"
    if moments.exists():
        load_optimizers(optimizers, moments)
    report.say(f"backbone of {sum(p.numel() for p in model.parameters()):,} parameters, from step {state['step']} of {recipe.steps}")
    pad = tokenizer.pad_token_id
    unseen = Corpus("validation")
    probes = [*unseen.people(recipe.seed, recipe.probe_people, 8), *unseen.people(recipe.seed, recipe.probe_people // 2, 8, updates=0.5)]
    probes += [*unseen.people(recipe.seed, recipe.probe_people, 3, stories=3), *unseen.people(recipe.seed, recipe.probe_people // 2, 8, joins=3)]
    probes += [*unseen.people(recipe.seed, recipe.probe_people // 4, 8, preferences=3), *unseen.people(recipe.seed, recipe.probe_people // 2, 6, dates=3)]
    made = made_ahead(partial(_made, recipe, corpus, chat, pad), range(state["step"], recipe.steps), workers)
    for step, (ids, weights) in zip(report.steps(state["step"], recipe.steps, "backbone"), made, strict=True):
        torch.manual_seed(recipe.seed + step)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = recipe.learning_rate * learning_rate(step, recipe.steps, recipe.warmup)
        with torch.autocast(device, torch.bfloat16):
            loss = _loss(model, ids.to(device), weights.to(device), recipe.context_share)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        report.value(loss=loss.item(), tokens=ids.numel())
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            model.save_pretrained(model_folder)
            save_optimizers(optimizers, moments)
            state_file.write_text(json.dumps({"step": step + 1, "recipe": asdict(recipe)}))
            model.eval()  # type: ignore[no-untyped-call]
            recall = context_recall(model, chat, probes)
            model.train()
            report.say("recall in context, 8 facts, validation split: " + "  ".join(f"{kind} {share:.2f}" for kind, share in recall.items()))
    return model_folder


def _made(recipe: BackboneRecipe, corpus: Corpus, chat: ChatFormat, pad: int, step: int) -> tuple[Tensor, Tensor]:
    return _batch(_lessons(recipe, corpus, chat, step), pad)


def _lessons(recipe: BackboneRecipe, corpus: Corpus, chat: ChatFormat, step: int) -> list[tuple[list[int], list[float]]]:
    """One step's rows, about `batch_tokens` in all and alike in length, so that little is padding."""
    rng = random.Random(f"backbone/{recipe.seed}/{step}")
    progress = min(1.0, step / (recipe.curriculum * recipe.steps))
    most = 1 + round(progress * (recipe.max_facts - 1))
    facts, talk = rng.randint((most + 1) // 2, most), progress * rng.random() ** 3 * 1.5
    tools = rng.random() < recipe.tool_share  # all rows of a step or none: their prompts are longer; so are stories
    most_stories = round(progress * recipe.max_stories) if not tools and rng.random() < recipe.story_share else 0
    rows: list[tuple[list[int], list[float]]] = []
    while sum(len(ids) for ids, _ in rows) < recipe.batch_tokens:
        if rows and corpus.dialogues and rng.random() < recipe.dialogue_share:
            rows.append(_dialogue(corpus, chat, recipe.dialogue_weight, len(rows[0][0]), rng))
            continue
        kit = rng.randint(1, 3) if tools else 0
        stories = rng.randint(1, most_stories) if most_stories else 0
        told = rng.randint(1, 5) if tools else rng.randint(1, max(1, facts // 2)) if stories else facts
        updates = recipe.update_share if rng.random() < 0.5 else 0.0
        joins = rng.randint(1, 3) if rng.random() < recipe.join_share else 0
        gleaned = 0 if tools or rng.random() >= recipe.gleaned_share else rng.randint(1, 3)
        preferences = rng.randint(1, 2) if not tools and rng.random() < recipe.preference_share else 0
        dates = rng.randint(1, 3) if not tools and rng.random() < recipe.date_share else 0
        options: dict[str, Any] = {"tools": kit, "updates": updates, "stories": stories, "joins": joins, "gleaned": gleaned, "preferences": preferences}
        options["dates"] = dates
        person = corpus.person(rng, told, talk=talk * (1 - 0.25 * gleaned), questions=recipe.questions, unknown=recipe.unknown_share, **options)
        system = rng.choice(corpus.systems) if rng.random() < 0.15 else None
        if rng.random() < recipe.notes_share:
            noted, person = _noted(person, rng.choice(corpus.notes), corpus.talk(rng) if rng.random() < 0.5 else (), rng)
            system = f"{system}\n\n{noted}" if system else noted
        rows.append(_lesson(person, chat, system, recipe.context_weight))
    return rows


@torch.inference_mode()
def context_recall(model: PreTrainedModel, chat: ChatFormat, people: Sequence[Person]) -> dict[str, float]:
    """Share of answers whose every token is the likeliest one, with the dialogue in context; by kind, open vocabulary apart."""
    scores: dict[str, list[bool]] = {kind: [] for kind in ("known", "open", "untold", "update", "earlier", "story", "joined", "dated", "preference")}
    for person in people:
        ids, weights = _batch([_lesson(person, chat, None, 0.0)], 0)
        learned = weights[0, 1:] > 0
        with torch.autocast(model.device.type, torch.bfloat16):
            hidden = model.model(input_ids=ids.to(model.device)).last_hidden_state[0, :-1][learned.to(model.device)]
            best = model.lm_head(hidden).argmax(-1).cpu()  # of answers alone: in two dimensions far faster on a CPU
        right = torch.zeros_like(learned)
        right[learned] = best == ids[0, 1:][learned]
        inside = learned.tolist()
        spans = [list(group) for answer, group in groupby(range(len(inside)), key=inside.__getitem__) if answer]
        for question, span in zip(person.questions, spans, strict=True):
            scores[answer_kind(question)].append(bool(right[span].all()))
    return {kind: sum(row) / len(row) for kind, row in scores.items() if row}


def save_optimizers(optimizers: Sequence[torch.optim.Optimizer], path: Path) -> None:
    """The optimizers' moments as safetensors (no pickle)."""
    from safetensors.torch import save_file

    moments: dict[str, Tensor] = {}
    for which, optimizer in enumerate(optimizers):
        for index, row in optimizer.state_dict()["state"].items():
            moments |= {f"{which}.{index}.{name}": tensor for name, tensor in row.items()}
    save_file(moments, path)


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], path: Path) -> None:
    """What `save_optimizers` wrote."""
    from safetensors.torch import load_file

    rows: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, tensor in load_file(path).items():
        which, index, name = key.split(".")
        rows[int(which)].setdefault(int(index), {})[name] = tensor
    for optimizer, moments in zip(optimizers, rows, strict=True):
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
