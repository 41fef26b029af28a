"""Cold start: memory weights made from a backbone alone, without training.

The read equations hold retrieval as a special case: the slot of head h is the embedding of a segment's h-th token, W_V
gives it back, the MLP adds nothing, and keys and e(x) are means of the frozen backbone's token embeddings and lower states,
whitened by those of a few everyday sentences (Huang et al. 2021, WhiteningBERT). Sharp attention then makes the soft
tokens the text of the segments, one of each read, that are most like the message.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from lpm_core.backbone import Backbone, padded
from lpm_core.checkpoint import MemoryWeights
from lpm_core.exceptions import InvalidInputError
from lpm_core.pooling import Pooling
from lpm_core.training.splits import talk

if TYPE_CHECKING:
    from lpm_core.training.memory import MemoryRecipe

__all__ = ["COLD", "LEAST_IN_TRAINING", "cold_recipe", "cold_start", "cold_weights"]

_log = logging.getLogger(__name__)

COLD: Final = "cold"
"""In place of a folder of memory weights: make them from the backbone alone."""

_ADDRESS = 512  # numbers of an address, at most
_SHARPNESS = 17.0  # of the attention, times the cosine: what it finds does not depend on it, and this is how sure it may be of it
_READS = 2  # segments that a recall says
_LEAST = 0.1  # the cosine of message and segment from which on a recall says the segment
LEAST_IN_TRAINING: Final = 0.35
"""The same where training goes on: lower, and its first steps learn above all that nothing was told."""
_CONSTANT = 0.3  # of a message's e(x), beside the rest: what the empty slot is found by
_LEARNING_RATE = 1e-4  # of training that goes on from here
_SMALL_TALK = ("chat", "acks", "systems")
_VERSION = 2  # of what is made here
_TOGETHER = 32  # sentences in one pass


def cold_start(backbone: Backbone) -> MemoryWeights:
    """`cold_weights` for an engine; says so, once for each backbone.

    Their fingerprint is that of the backbone and the recipe, so that pages stay good on another device and in another dtype.
    """
    _say(backbone.name)
    weights = cold_weights(backbone)
    made_of = f"cold {_VERSION} {backbone.fingerprint} {weights.config.model_dump_json()}"
    weights.identify(made_of)
    return weights


@cache
def _say(name: str) -> None:
    _log.warning(
        "%r starts without trained memory weights: its memory repeats the sentences that are most like a message. `lpm consolidate` refines a user's slots; "
        "`lpm train memory --backbone %s --output FOLDER` trains weights (--cold: from here on), for memory='FOLDER/memory'",
        name,
        name,
    )


@torch.no_grad()
def cold_weights(backbone: Backbone, *, heads: int = 64, least: float = _LEAST) -> MemoryWeights:
    """Memory weights that retrieve: of `heads` soft tokens, each half repeats one sentence, of the two that are most like the message.

    Their layers add nothing until they are trained. Slots are as wide as the backbone and an address more. Sentences whose cosine with
    a message of usual length is below `least` are as good as none. Raises InvalidInputError for an odd number of heads.
    """
    if heads < _READS or heads % _READS:
        raise InvalidInputError(f"{heads} heads: a cold start says {_READS} sentences with as many heads each; name an even number of at least {_READS}")
    size, meaning = backbone.size, min(_ADDRESS, 2 * backbone.size)
    address = meaning + 1
    shape = {"slot_size": size + address, "address_size": address, "key_size": address, "query_size": 2 * meaning}
    length = {"reads": _READS, "segment_tokens": heads // _READS, "sentence_tokens": 4}
    with torch.random.fork_rng(devices=[]):  # an engine that opens leaves the random numbers of its process alone
        weights = MemoryWeights.new(backbone, heads=heads, agree=True, **shape, **length)
    assert weights.writer.address is not None  # noqa: S101 (for the type checker)
    samples = _everyday_means(backbone)
    mean, directions = _whitening(samples, meaning)
    for pooling in (weights.writer.address, weights.projection.encode):
        _pool(pooling, mean, directions)
    typical = ((samples - mean) @ directions.T).norm(dim=-1).median()
    weights.projection.encode.out.bias[meaning] = _CONSTANT * typical  # e(x) has a constant, which of all slots only the empty one looks for
    torch.nn.init.zeros_(weights.writer.out.weight)
    torch.nn.init.zeros_(weights.writer.out.bias)
    projection = weights.projection
    projection.w_q.copy_(torch.eye(2 * meaning, address))
    projection.w_k.zero_()
    projection.w_k[:, size:] = torch.eye(address)
    projection.empty_slot.zero_()
    projection.empty_slot[..., -1] = least * math.sqrt(address) / _CONSTANT
    assert projection.sharpness is not None  # noqa: S101 (as above)
    projection.sharpness.fill_(_SHARPNESS / math.sqrt(2 * meaning))
    return weights.eval().requires_grad_(False)


def cold_recipe(recipe: MemoryRecipe) -> MemoryRecipe:
    """The recipe for going on from a cold start: its matrices are wider than usual, and what they do already is soon undone by larger steps."""
    return replace(recipe, learning_rate=_LEARNING_RATE, retrieval_learning_rate=_LEARNING_RATE)


def _everyday() -> list[str]:
    """Sentences of the small talk that training uses."""
    said = [item for kind in _SMALL_TALK for item in talk(kind, "train")]
    return [text for item in said for text in ([item] if isinstance(item, str) else item)]


def _everyday_means(backbone: Backbone) -> Tensor:
    """Mean states [S, 2d] of everyday sentences that say nothing in particular: what sentences have in common."""
    rows = [(*backbone.chat.turn("user", content), len(content)) for content in map(backbone.chat.content, _everyday())]
    means = []
    for start in range(0, len(rows), _TOGETHER):
        batch = rows[start : start + _TOGETHER]
        states = backbone.states(padded([ids for ids, _, _ in batch]).to(backbone.device)).float().cpu()
        means += [own[offset : offset + length].mean(0) for own, (_, offset, length) in zip(states, batch, strict=True)]
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
