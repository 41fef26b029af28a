"""Cold start: memory weights made from a backbone alone, without training.

The read equations hold retrieval as a special case: the slot of head h is the embedding of a segment's h-th token, W_V
gives it back, the MLP adds nothing, and keys and e(x) are means of the frozen backbone's token embeddings and lower states,
whitened by those of a few everyday sentences (Huang et al. 2021, WhiteningBERT). Sharp attention then makes the soft
tokens the text of the segments, one of each read, that are most like the message.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import Final

import torch
from torch import Tensor

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.pooling import Pooling
from lpm_core.training.splits import data, talk

__all__ = ["COLD", "cold_start", "cold_weights"]

_log = logging.getLogger(__name__)

COLD: Final = "cold"
"""In place of a folder of memory weights: make them from the backbone alone."""

_ADDRESS = 512  # numbers of an address, at most
_SHARPNESS = 60.0  # of the attention, in cosines
_READS = 2  # segments that a recall says


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
def cold_weights(backbone: Backbone, *, heads: int = 64) -> MemoryWeights:
    """Memory weights that retrieve: of `heads` soft tokens, each half repeats one sentence, of the two that are most like the message.

    Their layers add nothing until they are trained. Slots are as wide as the backbone and an address more.
    """
    size, address = backbone.size, min(_ADDRESS, 2 * backbone.size)
    shape = {"slot_size": size + address, "address_size": address, "key_size": address, "query_size": 2 * address}
    length = {"reads": _READS, "segment_tokens": heads // _READS, "sentence_tokens": 4}
    with torch.random.fork_rng(devices=[]):  # an engine that opens leaves the random numbers of its process alone
        weights = MemoryWeights.new(backbone, heads=heads, agree=True, **shape, **length)
    assert weights.writer.address is not None  # noqa: S101 (for the type checker)
    mean, directions = _whitening(_everyday_means(backbone), address)
    for pooling in (weights.writer.address, weights.projection.encode):
        _pool(pooling, mean, directions)
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


def _everyday_means(backbone: Backbone) -> Tensor:
    """Mean states [S, 2d] of everyday sentences that say nothing in particular: what sentences have in common."""
    kinds = (kind for kind in data("talk.toml") if not kind.startswith("more_"))
    sentences = (text for kind in kinds for text in talk(kind, "train") if isinstance(text, str) and "{" not in text)
    means = []
    for text in sentences:
        content = backbone.chat.content(text)
        ids, offset = backbone.chat.turn("user", content)
        states = backbone.states(torch.tensor([ids], device=backbone.device))[0, offset : offset + len(content)]
        means.append(states.float().mean(0).cpu())
    return torch.stack(means)


def _whitening(samples: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean [D] of samples [S, D], and directions [size, D] along which they vary alike; the spectrum is lifted by its mean, as samples are few."""
    mean = samples.mean(0)
    spread = torch.linalg.svd(samples - mean, full_matrices=False)
    variance = spread.S.square() / (len(samples) - 1)
    level = variance.sum() / samples.shape[1]
    shrunk = (level / (variance + level)).sqrt() - 1
    whiten = torch.eye(samples.shape[1]) + spread.Vh.T @ (shrunk[:, None] * spread.Vh)
    if size == samples.shape[1]:
        return mean, whiten
    generator = torch.Generator().manual_seed(0)
    return mean, torch.linalg.qr(torch.randn(samples.shape[1], size, generator=generator)).Q.T @ whiten  # random projection: it keeps cosines nearly


def _pool(pooling: Pooling, mean: Tensor, directions: Tensor) -> None:
    """Make a pooling the mean of its text's states, less `mean` [D], along `directions` [size, D].

    A line and its mirror image through GELU give the line back: gelu(x) - gelu(-x) = x.
    """
    size = len(directions)
    pooling.source.weight.copy_(torch.cat([directions, -directions]))
    pooling.source.bias.copy_(torch.cat([-directions @ mean, directions @ mean]))
    pooling.scores.weight.zero_()
    pooling.scores.bias.zero_()
    pooling.out.weight.zero_()
    pooling.out.weight[:size, :size] = torch.eye(size)
    pooling.out.weight[:size, size : 2 * size] = -torch.eye(size)
    pooling.out.bias.zero_()
