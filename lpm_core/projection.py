"""The read path: a message and a user's slots become H soft-prompt tokens.

    P~_h = softmax(W_Qh e(x) (W_Kh M_uh)^T / sqrt(d_k)) W_Vh M_uh
    P_h  = LN_h(P~_h + MLP(P~_h))

With `LPMConfig.agree` the softmax is that of the heads' mean score, the same for all: head h of a segment's slots holds
its h-th word, so heads that look at different segments mix up their words.
With `LPMConfig.recency` a slot's score also has r(e(x)) times the logarithm of its age, counted in newer slots: a question
may prefer the latest of several statements, or the earlier.
Shared by all users of a backbone; the slots M_u are all that belongs to one of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpm_core.settings import LPMConfig

__all__ = ["Pooling", "SoftPromptProjection", "principal_directions"]


class Pooling(nn.Module):
    """Hidden states of a text pooled into one vector by a few learned attention queries: e(x) of a message, the address of a segment."""

    def __init__(self, config: LPMConfig, size: int, pools: int = 8) -> None:
        super().__init__()
        width = config.query_size
        self.source = nn.Linear(2 * config.backbone_size, width)
        self.scores = nn.Linear(width, pools)
        self.out = nn.Linear(pools * width, size)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, 2d] (token embedding and lower layer), mask [B, T] true at tokens -> [B, size]."""
        hidden = F.gelu(self.source(states))
        weights = self.scores(hidden).masked_fill(~mask[..., None], float("-inf")).softmax(1)  # [B, T, pools]
        pooled = torch.einsum("btp,btw->bpw", weights, hidden).flatten(1)
        encoded: Tensor = self.out(pooled)
        return F.rms_norm(encoded, (encoded.shape[-1],))


class SoftPromptProjection(nn.Module):
    """The paper's shared projection network, H heads with weights of their own.

    Besides the user's slots every head sees one learned slot, the same for all users: where nothing fits, attention
    rests there, and it is all that a user without a history has.
    """

    def __init__(self, config: LPMConfig) -> None:
        super().__init__()
        heads, slot, key, width = config.heads, config.slot_size, config.key_size, config.backbone_size
        self.config = config
        self.encode = Pooling(config, config.query_size)
        self.w_q = nn.Parameter((torch.randn(config.query_size, key) / math.sqrt(config.query_size)).repeat(heads, 1, 1))
        self.w_k = nn.Parameter((torch.randn(slot, key) / math.sqrt(slot)).repeat(heads, 1, 1))
        self.w_v = nn.Parameter(torch.randn(heads, slot, width) / math.sqrt(slot))
        self.sharpness = nn.Parameter(torch.tensor(4.0)) if config.agree else None
        self.recency = nn.Linear(config.query_size, 1) if config.recency else None
        self.empty_slot = nn.Parameter(torch.randn(heads, 1, slot) * 0.02)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.gain = nn.Parameter(torch.ones(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))
        if self.recency is not None:
            nn.init.zeros_(self.recency.weight)
            nn.init.zeros_(self.recency.bias)
        nn.init.zeros_(self.mlp[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.mlp[2].bias)  # type: ignore[arg-type]

    def forward(self, query: Tensor, slots: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Messages of B users and the slots that each may read.

        query: e(x) [B, query_size], or [B, Q, query_size] for Q messages of each user; slots: [B, H, N, d_mem], the oldest first;
        mask: [B, N] or [B, Q, N], true where a slot may be read (None: all may).
        Returns soft tokens [B, H, d] and log attention [B, H, 1 + N], the shared empty slot first; with Q messages
        [B, Q, H, d] and [B, Q, H, 1 + N].
        """
        if query.dim() == 2:
            soft, log_attention = self(query[:, None], slots, mask)
            return soft[:, 0], log_attention[:, 0]
        slots = self._with_empty(slots)
        log_attention = self._attend(query, slots, mask)
        read = log_attention.exp().to(slots.dtype) @ slots  # values are linear: mix slots, then W_V
        mixed = torch.einsum("bhqm,hmd->bqhd", read, self.w_v)
        mixed = F.layer_norm(mixed + self.mlp(mixed), (mixed.shape[-1],))
        return mixed * self.gain + self.bias, log_attention.transpose(1, 2)

    def attention(self, query: Tensor, slots: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log attention [B, Q, H, 1 + N] alone, of messages [B, Q, query_size]."""
        return self._attend(query, self._with_empty(slots), mask).transpose(1, 2)

    def _with_empty(self, slots: Tensor) -> Tensor:
        return torch.cat([self.empty_slot.expand(slots.shape[0], -1, -1, -1), slots], dim=2)  # [B, H, 1+N, d_mem]

    def _attend(self, query: Tensor, slots: Tensor, mask: Tensor | None) -> Tensor:
        """Log attention [B, H, Q, 1 + N] over the empty slot and the user's."""
        q = torch.einsum("bqe,hek->bhqk", query, self.w_q)
        sought = torch.einsum("bhqk,hmk->bhqm", q, self.w_k)  # q (W_K M)^T = (q W_K^T) M^T, which needs no keys
        scores = (sought @ slots.transpose(2, 3)).float() / math.sqrt(self.config.key_size)  # [B, H, Q, 1+N]
        if self.sharpness is not None:
            scores = (scores.mean(1, keepdim=True) * self.sharpness).expand_as(scores)
        if mask is not None:
            mask = mask if mask.dim() == 3 else mask[:, None]  # [B, 1 or Q, N]
        if self.recency is not None:
            readable = slots.new_ones(1, 1, slots.shape[2] - 1) if mask is None else mask.to(slots.dtype)
            newer = readable.float().flip(-1).cumsum(-1).flip(-1) - readable  # how many readable slots are newer than each
            preferred = self.recency(query).float() * -torch.log1p(newer)  # [B, Q, N]
            scores = scores + F.pad(preferred, (1, 0))[:, None]
        if mask is not None:
            scores = scores.masked_fill(~F.pad(mask, (1, 0), value=True)[:, None], float("-inf"))
        return scores.log_softmax(-1)

    @torch.no_grad()
    def start_from(self, embeddings: Tensor) -> None:
        """Begin near the backbone's own token embeddings [V, d]: their size for LN_h, their main directions for W_V.

        At first values are read from the words in a slot and keys from the address behind them.
        """
        words = self.config.slot_size - self.config.address_size
        self.gain.fill_(embeddings.float().pow(2).mean().sqrt().item())
        self.w_v.zero_()
        self.w_v[:, :words] = principal_directions(embeddings, words)
        if self.config.address_size:
            self.w_k[:, :words] = 0


def principal_directions(embeddings: Tensor, count: int) -> Tensor:
    """The `count` directions along which token embeddings [V, d] vary most, as rows of length 1: [count, d]."""
    centred = embeddings.float() - embeddings.float().mean(0)
    covariance = centred.T @ centred / len(centred)
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -min(count, covariance.shape[0]) :]
    return F.pad(directions.T, (0, 0, 0, count - directions.shape[1]))
