"""Shapes of the Qwen3 family, for measuring and planning without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transformers import Qwen3Config

__all__ = ["SHAPES", "Shape"]

_VOCABULARY, _KV_HEADS, _HEAD_SIZE = 151_936, 8, 128
_WINDOW = 131_072  # with YaRN; 40,960 without


@dataclass(frozen=True)
class Shape:
    """What distinguishes the sizes of the Qwen3 family; all have 8 key-value heads of 128 numbers and 151,936 tokens."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    tied: bool = True

    def config(self) -> Qwen3Config:
        """The shape as transformers knows it."""
        from transformers import Qwen3Config

        return Qwen3Config(
            vocab_size=_VOCABULARY, hidden_size=self.hidden, intermediate_size=self.intermediate, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=_KV_HEADS, head_dim=_HEAD_SIZE, max_position_embeddings=_WINDOW,
            tie_word_embeddings=self.tied, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip


SHAPES: Final[dict[str, Shape]] = {
    "0.6b": Shape(1024, 28, 16, 3072),
    "1.7b": Shape(2048, 28, 16, 6144),
    "4b": Shape(2560, 36, 32, 9728),
    "8b": Shape(4096, 36, 32, 12288, tied=False),
}
"""Shapes of the Qwen3 family, by name."""
