"""The read path computes the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lpm_core.projection import SoftPromptProjection, principal_directions
from lpm_core.settings import LPMConfig


def _projection(heads: int, seed: int, agree: bool = False) -> SoftPromptProjection:
    torch.manual_seed(seed)
    config = LPMConfig(backbone_size=12, heads=heads, slot_size=6, address_size=2, key_size=5, query_size=7, writer_size=8, agree=agree)
    projection = SoftPromptProjection(config).double()
    for parameter in projection.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return projection


def _naive(projection: SoftPromptProjection, query: Tensor, slots: Tensor) -> Tensor:
    """The equations, one user, one head and one slot at a time."""
    heads = range(projection.config.heads)
    memory = [[projection.empty_slot[h, 0], *slots[h]] for h in heads]  # M_uh
    asked = [query @ projection.w_q[h] for h in heads]  # W_Qh e(x)
    scores = [torch.stack([asked[h] @ (slot @ projection.w_k[h]) / math.sqrt(projection.config.key_size) for slot in memory[h]]) for h in heads]
    if projection.sharpness is not None:
        scores = [projection.sharpness * torch.stack(scores).mean(0)] * len(heads)
    rows = []
    for h in heads:
        weights = scores[h].exp() / scores[h].exp().sum()
        mixed = sum((weight * (slot @ projection.w_v[h]) for weight, slot in zip(weights, memory[h], strict=True)), torch.zeros(12, dtype=torch.float64))
        mixed = mixed + projection.mlp(mixed)
        normal = (mixed - mixed.mean()) / (mixed.var(unbiased=False) + 1e-5).sqrt()
        rows.append(normal * projection.gain[h] + projection.bias[h])  # LN_h
    return torch.stack(rows)


@settings(max_examples=20, deadline=None)
@given(heads=st.integers(1, 4), count=st.integers(0, 5), seed=st.integers(0, 1000), agree=st.booleans())
def test_projection_equals_a_naive_loop_in_float64(heads: int, count: int, seed: int, agree: bool) -> None:
    projection = _projection(heads, seed, agree)
    query, slots = torch.randn(2, 3, 7, dtype=torch.float64), torch.randn(2, heads, count, 6, dtype=torch.float64)

    soft, attention = projection(query, slots)

    expected = torch.stack([torch.stack([_naive(projection, query[row, column], slots[row]) for column in range(3)]) for row in range(2)])
    assert torch.allclose(soft, expected, atol=1e-5)  # attention is normalised in float32
    assert torch.allclose(projection(query[:, 1], slots)[0], soft[:, 1])
    assert attention.shape == (2, 3, heads, 1 + count)
    assert torch.allclose(attention.exp().sum(-1), torch.ones(2, 3, heads), atol=1e-5)


def test_masked_slots_change_nothing() -> None:
    projection = _projection(3, 0)
    query, slots = torch.randn(1, 7, dtype=torch.float64), torch.randn(1, 3, 4, 6, dtype=torch.float64)
    padded = F.pad(slots, (0, 0, 0, 3), value=9.0)

    alone, _ = projection(query, slots)
    masked, attention = projection(query, padded, torch.tensor([[True] * 4 + [False] * 3]))

    assert torch.allclose(alone, masked)
    assert attention.exp()[..., 5:].sum() == 0


def test_order_of_slots_does_not_matter() -> None:
    projection = _projection(2, 1)
    query, slots = torch.randn(1, 7, dtype=torch.float64), torch.randn(1, 2, 5, 6, dtype=torch.float64)

    assert torch.allclose(projection(query, slots)[0], projection(query, slots.flip(2))[0], atol=1e-6)


def test_soft_tokens_start_at_the_size_of_token_embeddings() -> None:
    embeddings = torch.randn(50, 12) * 0.03
    projection = _projection(2, 2).float()
    torch.nn.init.zeros_(projection.mlp[2].weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(projection.mlp[2].bias)  # type: ignore[arg-type]
    torch.nn.init.zeros_(projection.bias)
    projection.start_from(embeddings)

    soft, _ = projection(torch.randn(1, 7), torch.randn(1, 2, 3, 6))

    assert soft.pow(2).mean().sqrt().item() == pytest.approx(embeddings.pow(2).mean().sqrt().item(), rel=0.05)


def test_principal_directions_are_orthonormal_and_padded() -> None:
    directions = principal_directions(torch.randn(100, 4), 6)

    assert directions.shape == (6, 4)
    assert torch.allclose(directions[:4] @ directions[:4].T, torch.eye(4), atol=1e-4)
    assert directions[4:].abs().sum() == 0


def test_recency_lets_a_question_prefer_newer_slots_and_does_nothing_before_it_is_trained() -> None:
    config = LPMConfig(backbone_size=12, heads=2, slot_size=6, address_size=2, key_size=5, query_size=7, writer_size=8, agree=True, recency=True)
    torch.manual_seed(0)
    projection = SoftPromptProjection(config)
    query, slots = torch.randn(1, 7), torch.randn(1, 2, 1, 6).expand(-1, -1, 4, -1)  # the same slot four times
    mask = torch.tensor([[True, True, True, False]])  # the last is padding
    assert projection.recency is not None

    before = projection(query, slots, mask)[1]
    torch.nn.init.constant_(projection.recency.bias, 2.0)
    after = projection(query, slots, mask)[1]

    assert torch.allclose(before[..., 1], before[..., 3])
    assert (after[..., 1] < after[..., 2]).all()
    assert (after[..., 2] < after[..., 3]).all()
    assert after[..., 4].isneginf().all()
    assert torch.allclose(projection(query, slots[:, :, :3])[1], after[..., :4])  # what may not be read has no age
