"""What training memory weights for a backbone will take: parameters, memory, operations and hours, from its config alone."""

from __future__ import annotations

import os
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from lpm_core.checkpoint import MemoryWeights
from lpm_core.exceptions import InvalidInputError, ModelError, ModelNotFoundError
from lpm_core.settings import LPMConfig
from lpm_core.shapes import SHAPES
from lpm_core.training.corpus import Corpus

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from lpm_core.training.memory import MemoryRecipe

__all__ = ["GPUS", "TrainingPlan", "backbone_config", "training_plan"]

GPUS: Final[dict[str, tuple[float, int]]] = {
    "h200": (989, 141), "h100": (989, 80), "a100": (312, 80), "l40s": (362, 48), "rtx4090": (165, 24), "rtx3090": (71, 24),
}  # fmt: skip
"""Dense bfloat16 TFLOPS, as their maker states them, and gigabytes of memory."""

_USED = 0.35  # of the stated TFLOPS: what training of this kind usually reaches
_TOKENS_OF_A_WORD = 1.35  # of a real Qwen3's tokenizer, in English
_ACTIVATIONS = 34  # bytes of activations a token, layer and hidden unit in 16 bits (Korthikanti et al. 2022), attention scores aside
_LORA_RANK = 16
_LORA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TrainingPlan:
    """Estimates for one GPU. Numbers are counts of parameters, bytes, floating-point operations and hours."""

    backbone: str
    backbone_parameters: int
    shared_parameters: int
    slot_numbers: int
    user_numbers: int
    lora_numbers: int
    step_tokens: int
    step_flops: float
    memory_bytes: float
    steps: int
    gpu: str
    hours: float
    fits: bool


def backbone_config(name: str) -> PretrainedConfig:
    """The config of a folder or a hub name; of the Qwen3 family's sizes known here (Qwen/Qwen3-1.7B) without asking the hub.

    Raises ModelNotFoundError, ModelError.
    """
    from transformers import AutoConfig

    known = SHAPES.get(name.lower().removeprefix("qwen/").removeprefix("qwen3-"))
    if known and not Path(name).is_dir():
        return known.config()
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=Path(name).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1")
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"there is no config of {name!r}: give a folder with config.json, or a hub name such as Qwen/Qwen3-1.7B") from error
    if config.model_type != "qwen3":
        raise ModelError(f"{name!r} is a {config.model_type!r} model; latent memory needs a causal LM of the Qwen3 family, for example Qwen/Qwen3-1.7B")
    found: PretrainedConfig = config
    return found


def training_plan(name: str, recipe: MemoryRecipe, *, gpu: str = "h200", user_slots: int = 32, checkpointing: bool = False) -> TrainingPlan:
    """Estimates for training with a recipe; `user_slots` is N, the slots of the user whose size is told. Raises InvalidInputError, ModelError.

    Operations: 2 a parameter and token forwards, as many backwards through the frozen layers (they get no gradients of their own), again as many
    forwards with checkpointing; 6 for what is trained. Lengths of histories, questions and answers are those of the synthetic corpus.
    """
    if gpu not in GPUS:
        raise InvalidInputError(f"there is no figure for the GPU {gpu!r}: name one of {', '.join(GPUS)}")
    from transformers import AutoModelForCausalLM

    config = backbone_config(name)
    make: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = make(config, dtype=torch.bfloat16)
        size, layers = config.hidden_size, config.num_hidden_layers
        layer = max(1, layers // 2 if layers <= 8 else layers // 4)
        memory = LPMConfig(backbone_size=size, layer=layer, **recipe.shape)
        weights = MemoryWeights(memory)
    inner = sum(parameter.numel() for parameter in model.model.layers.parameters())
    shared = sum(parameter.numel() for parameter in weights.parameters())
    written, asked, answered = _lengths(recipe)
    rows = recipe.users * recipe.questions
    through = rows * (recipe.heads + asked + answered)  # tokens through the whole backbone
    segments = recipe.users * written / memory.segment_tokens
    head = 2 * config.vocab_size * size * rows * answered
    flops = 2 * inner * (layer / layers) * recipe.users * written + (6 if checkpointing else 4) * inner * through + 2 * head
    flops += 6 * sum(p.numel() for p in weights.writer.parameters()) * segments * memory.banks / memory.writer_layers
    kept = 2 * through * layers * size + _ACTIVATIONS * min(through, recipe.rows * (recipe.heads + asked + answered)) * size if checkpointing else 0
    activations = kept or _ACTIVATIONS * through * layers * size
    memory_bytes = 2 * model.num_parameters() + 16 * shared + activations + 8 * config.vocab_size * rows * answered
    lora = sum(_LORA_RANK * sum(module.weight.shape) for name, module in model.named_modules() if name.rpartition(".")[2] in _LORA)
    steps = recipe.steps + recipe.retrieval_steps
    teraflops, gigabytes = GPUS[gpu]
    return TrainingPlan(
        backbone=name, backbone_parameters=model.num_parameters(), shared_parameters=shared,
        slot_numbers=memory.banks * memory.slot_size, user_numbers=user_slots * memory.banks * memory.slot_size, lora_numbers=lora,
        step_tokens=round(through + recipe.users * written), step_flops=flops, memory_bytes=memory_bytes, steps=steps, gpu=gpu,
        hours=flops * steps / (teraflops * 1e12 * _USED) / 3600, fits=memory_bytes < gigabytes * 1e9,
    )  # fmt: skip


def _lengths(recipe: MemoryRecipe) -> tuple[float, float, float]:
    """Mean tokens of a history, of a question with its markup and of an answer, in the corpus as the recipe draws it."""
    rng = random.Random(0)
    corpus = Corpus("train")
    people = [corpus.person(rng, rng.randint(recipe.max_facts // 2, recipe.max_facts), questions=recipe.questions) for _ in range(20)]

    def tokens(texts: list[str], frame: int) -> float:
        return statistics.fmean(_TOKENS_OF_A_WORD * len(text.split()) + frame for text in texts)

    history = statistics.fmean(len(person.turns) * tokens([text for _, text in person.turns], 5) for person in people)
    questions = [question for person in people for question in person.questions]
    return history, tokens([question.text for question in questions], 9), tokens([question.answer for question in questions], 1)
