"""Compaction: a user's slots kept within a budget, the oldest merged, so that reading never costs more.

Pages stay whole in the store; what is merged is what the engine reads of them. So nothing is lost for good: turns can
still be forgotten exactly, and a larger budget brings every slot back.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from lpm_core.memory import Slots

__all__ = ["compact"]

_BLOCK: Final = 1024  # slots among which the most alike are looked for: neighbours in time
_TIE: Final = 1e-6  # of likeness


def compact(slots: Slots, budget: int, *, address_size: int) -> Slots:
    """At most `budget` slots: among the older ones, the two most alike are merged until the rest fits, so that small talk goes first.

    Alike is a matter of the last `address_size` numbers of a slot (all, if 0), by cosine; a merged slot is the mean of what it stands for, at
    the mean of their lengths, in the place of the oldest, with the turns of all.
    """
    values, turns = slots.values, list(slots.turns)
    if values.shape[1] <= budget:
        return slots
    values, sizes = values.clone(), torch.ones(values.shape[1])
    while (excess := values.shape[1] - budget) > 0:
        older = min(max(2 * excess, values.shape[1] // 2), values.shape[1])
        first, second = _pairs(values[:, :older, -address_size:], excess)
        share = (sizes[first] / (sizes[first] + sizes[second]))[:, None]  # [pairs, 1]
        mixed = share * values[:, first] + (1 - share) * values[:, second]
        lengths = share * values[:, first].norm(dim=-1, keepdim=True) + (1 - share) * values[:, second].norm(dim=-1, keepdim=True)
        values[:, first] = F.normalize(mixed, dim=-1) * lengths
        sizes[first] += sizes[second]
        for stays, goes in zip(first.tolist(), second.tolist(), strict=True):
            turns[stays] = tuple(dict.fromkeys((*turns[stays], *turns[goes])))
        kept = torch.ones(values.shape[1], dtype=torch.bool)
        kept[second] = False
        values, sizes, turns = values[:, kept], sizes[kept], [owners for owners, stays in zip(turns, kept.tolist(), strict=True) if stays]
    return Slots(values, tuple(turns))


def _pairs(addresses: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """At most `most` pairs of slots [G, N, a] that are each other's nearest, the more alike half of them: places of the older and the newer [pairs]."""
    points = F.normalize(addresses.mean(0).float(), dim=-1)  # [N, a]
    likeness, nearest = torch.empty(len(points)), torch.empty(len(points), dtype=torch.long)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        all_pairs = (block @ block.T).fill_diagonal_(-torch.inf)
        places = torch.arange(len(block))
        beside = (places ^ 1).clamp(max=len(block) - 1)
        all_pairs[places, beside] += _TIE  # of equals, neighbours find each other
        best = all_pairs.max(-1)
        likeness[start : start + _BLOCK], nearest[start : start + _BLOCK] = best.values, best.indices + start
    older = torch.arange(len(points))
    older = older[(nearest[nearest] == older) & (older < nearest)]
    if not len(older):  # ties that rounding decides one way here and another there
        return torch.tensor([0]), torch.tensor([1])
    older = older[likeness[older].argsort(descending=True)][: min(most, -(-len(older) // 2))]
    return older, nearest[older]
