"""The read path computes the paper's equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lpm_core.pooling import Pooling, principal_directions
from lpm_core.projection import SoftPromptProjection
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


def _two_reads(seed: int) -> SoftPromptProjection:
    torch.manual_seed(seed)
    sizes = {"backbone_size": 12, "slot_size": 6, "address_size": 2, "key_size": 5, "query_size": 7, "writer_size": 8}
    projection = SoftPromptProjection(LPMConfig(heads=4, reads=2, agree=True, recency=True, **sizes)).double()
    for parameter in projection.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return projection


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 6), seed=st.integers(0, 1000))
def test_each_read_says_another_segment_whole_and_the_older_comes_first(count: int, seed: int) -> None:
    projection = _two_reads(seed)
    query, slots = torch.randn(2, 3, 7, dtype=torch.float64), torch.randn(2, 2, count, 6, dtype=torch.float64)
    memory = torch.cat([projection.empty_slot.expand(2, -1, -1, -1), slots], 2)

    soft, attention = projection(query, slots)
    ranked = projection.attention(query, slots)[:, :, :, 0]  # [2, 3, 2, 1 + count]

    assert soft.shape == (2, 3, 4, 12)
    assert attention.shape == (2, 3, 4, 1 + count)
    for user in range(2):
        for asked in range(3):
            first, second = picks = ranked[user, asked].argmax(-1).tolist()
            assert first != second or first == 0  # the slot of all users may be read twice
            for place, rank in enumerate(sorted(range(2), key=lambda rank: picks[rank])):
                rows = slice(2 * place, 2 * place + 2)
                said = torch.einsum("gm,gmd->gd", memory[user, :, picks[rank]], projection.w_v)
                said = F.layer_norm(said + projection.mlp(said), (12,)) * projection.gain[2 * rank : 2 * rank + 2] + projection.bias[2 * rank : 2 * rank + 2]
                assert torch.allclose(soft[user, asked, rows], said, atol=1e-5)
                assert torch.allclose(attention[user, asked, rows], ranked[user, asked, rank].expand(2, -1))


def test_a_read_learns_which_segment_to_say() -> None:
    projection = _two_reads(3).float()
    query, slots, target = torch.randn(8, 7), torch.randn(8, 2, 5, 6), torch.randn(8, 4, 12)
    optimizer = torch.optim.Adam(projection.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(projection(query, slots)[0], target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())

    assert projection.w_q.grad is not None
    assert projection.w_q.grad.abs().sum() > 0
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [({"heads": 6, "reads": 4, "agree": True}, "multiple"), ({"heads": 4, "reads": 2}, "agree=True"), ({"query_size": 6, "encoder_layers": 1}, "query_size 6")],
)
def test_shapes_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LPMConfig(backbone_size=12, **options)


def test_layers_before_pooling_see_no_padding_and_add_nothing_until_they_are_trained() -> None:
    torch.manual_seed(0)
    deep, flat = (Pooling(LPMConfig(backbone_size=12, query_size=8, encoder_layers=layers), 5) for layers in (1, 0))
    flat.load_state_dict(deep.state_dict(), strict=False)
    states, mask = torch.randn(2, 4, 24), torch.tensor([[True] * 4, [True, True, False, False]])

    assert torch.allclose(deep(states, mask), flat(states, mask))
    for parameter in deep.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    assert torch.allclose(deep(states, mask)[1], deep(states[1:, :2], mask[1:, :2])[0], atol=1e-6)


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
