"""Cold start: memory weights made from a backbone alone, without training.

The read equations hold retrieval as a special case: the slot of head h is the embedding of a segment's h-th token, W_V
gives it back, the MLP adds nothing, and keys and e(x) are idf-weighted means of token embeddings. Sharp attention
then makes the soft tokens the text of the segment that shares most with the message.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.pooling import Pooling, principal_directions

__all__ = ["COLD", "cold_start", "cold_weights"]

_log = logging.getLogger(__name__)

COLD: Final = "cold"
"""In place of a folder of memory weights: make them from the backbone alone."""

_ADDRESS = 256  # numbers of an address, at most
_SHARPNESS = 60.0  # of the attention, in cosines
_RARITY = 2.0  # how much more a rare word counts than a common one: the power of its idf


def cold_start(backbone: Backbone) -> MemoryWeights:
    """`cold_weights` for an engine; says so, once for each backbone."""
    _say(backbone.name)
    return cold_weights(backbone)


@cache
def _say(name: str) -> None:
    _log.warning(
        "%r starts without trained memory weights: its memory retrieves by token embeddings. `lpm consolidate` refines a user's slots; "
        "`lpm train memory --backbone %s --output FOLDER` trains weights, for memory='FOLDER'",
        name,
        name,
    )


@torch.no_grad()
def cold_weights(backbone: Backbone, *, heads: int = 32) -> MemoryWeights:
    """Memory weights that retrieve: `heads` soft tokens repeat the segment of at most so many tokens that fits the message best.

    Their layers add nothing until they are trained. Slots are as wide as the backbone and an address more.
    """
    size, address = backbone.size, min(_ADDRESS, backbone.size)
    shape = {"slot_size": size + address, "address_size": address, "key_size": address, "query_size": 2 * address, "segment_tokens": heads}
    with torch.random.fork_rng(devices=[]):  # an engine that opens leaves the random numbers of its process alone
        weights = MemoryWeights.new(backbone, heads=heads, agree=True, **shape)
    embeddings = F.rms_norm(backbone.embeddings.float().cpu(), (size,))  # [V, d], as `Backbone.states` gives them
    assert weights.writer.address is not None  # noqa: S101 (for the type checker)
    _pool_by_rarity((weights.writer.address, weights.projection.encode), embeddings, address)
    torch.nn.init.zeros_(weights.writer.out.weight)
    torch.nn.init.zeros_(weights.writer.out.bias)
    projection = weights.projection
    projection.w_q.copy_(torch.eye(2 * address, address))
    projection.w_k.zero_()
    projection.w_k[:, size:] = torch.eye(address)
    projection.empty_slot.zero_()
    assert projection.sharpness is not None  # noqa: S101 (as above)
    projection.sharpness.fill_(_SHARPNESS / math.sqrt(address))
    return weights.eval().requires_grad_(False)


def _pool_by_rarity(poolings: Sequence[Pooling], embeddings: Tensor, size: int) -> None:
    """Make poolings the mean of token embeddings [V, d], centred, along their `size` main directions, each weighted by its token's rarity.

    A line and its mirror image through GELU give the line back: gelu(x) - gelu(-x) = x.
    """
    directions = principal_directions(embeddings, size)  # [size, d]
    mean = embeddings.mean(0)
    rarity = torch.arange(len(embeddings), dtype=torch.float32).add(2).log().log()  # of byte pair encodings: common tokens were merged first
    lines = (embeddings - mean) @ directions.T
    level = rarity.mean()
    fitted = torch.linalg.lstsq(lines.T @ lines + 1e-2 * len(lines) * torch.eye(size), lines.T @ (rarity - level)).solution
    for pooling in poolings:
        pooling.source.weight.zero_()
        pooling.source.weight[:, : embeddings.shape[1]] = torch.cat([directions, -directions])
        pooling.source.bias.copy_(torch.cat([-directions @ mean, directions @ mean]))
        pooling.scores.weight.copy_(_RARITY * torch.cat([fitted, -fitted]).expand_as(pooling.scores.weight))
        pooling.scores.bias.zero_()
        pooling.out.weight.zero_()
        pooling.out.weight[:size, :size] = torch.eye(size)
        pooling.out.weight[:size, size : 2 * size] = -torch.eye(size)
        pooling.out.bias.zero_()
