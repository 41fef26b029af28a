"""A tiny random Qwen3 with untrained memory weights: for everything that does not depend on answers being right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights

_SHAPE = {"heads": 4, "slot_size": 8, "address_size": 4, "key_size": 8, "query_size": 16, "writer_size": 16, "segment_tokens": 8, "chunk_tokens": 64}


def make_tiny(folder: Path, *, seed: int = 0, tied: bool = True, terse: bool = False) -> Path:
    """Save a random Qwen3 of two layers, with weights large enough that errors show in its logits.

    terse: one that often ends what it says after a few tokens, so that it can study what it was told.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from lpm_core.training.corpus import Corpus
    from lpm_core.training.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(Corpus("train").texts(random.Random(0), 20), 400)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        max_position_embeddings=256, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=tied, initializer_range=0.2,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    if terse:
        with torch.no_grad():
            model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 8
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_weights(backbone: Backbone, *, seed: int = 0, **shape: int) -> MemoryWeights:
    """Untrained memory weights for a tiny backbone."""
    return MemoryWeights.new(backbone, seed=seed, **(_SHAPE | shape)).eval().requires_grad_(False)


def make_tiny_memory(folder: Path) -> Path:
    """Save memory weights beside a tiny Qwen3."""
    backbone = Backbone.load(folder)
    tiny_weights(backbone).save(folder / "memory", backbone)
    return folder


class RecordingBackbone(Backbone):
    """A backbone that keeps the token ids it was given, row by row."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rows: list[list[int]] = []
        self.model.register_forward_pre_hook(self._forward, with_kwargs=True)

    def _forward(self, _model: object, _arguments: object, options: dict[str, Any]) -> None:
        if options.get("input_ids") is not None:
            self.rows += options["input_ids"].tolist()

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        self.rows.append(list(ids))
        return super().embed(ids)

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        self.rows += ids.tolist()
        return super().states(ids)

    def taken(self) -> list[list[int]]:
        """The rows since the last time."""
        rows, self.rows = self.rows, []
        return rows

    def markup(self, row: Sequence[int]) -> list[str]:
        """The markup among token ids."""
        names = self.chat.tokenizer.added_tokens_decoder
        return [names[token].content for token in row if token in names]
