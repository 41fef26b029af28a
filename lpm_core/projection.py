"""The read path: a message and a user's slots become H soft-prompt tokens.

    P~_h = softmax(W_Qh e(x) (W_Kh M_uh)^T / sqrt(d_k)) W_Vh M_uh
    P_h  = LN_h(P~_h + MLP(P~_h))

With `LPMConfig.agree` the softmax is that of the heads' mean score, the same for all: head h of a segment's slots holds
its h-th word, so heads that look at different segments mix up their words.
With `LPMConfig.recency` a slot's score also has r(e(x)) times the logarithm of its age, counted in newer slots: a question
may prefer the latest of several statements, or the earlier.
With several `LPMConfig.reads` the heads are as many groups, each of which says one segment whole: that on which its attention rests most.
What a read finds goes into the message of the next, e'(x) = RMS(e(x) + hop(e(x), M_u of it)), which finds another segment;
the soft tokens are then those of the older segment first. Gradients pass as if attention were soft (straight through, Bengio et al. 2013).
Shared by all users of a backbone; the slots M_u are all that belongs to one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpm_core.pooling import Pooling, principal_directions
from lpm_core.settings import LPMConfig

__all__ = ["SoftPromptProjection"]


class _Hop(nn.Module):
    """Puts what a read has found into the message of the next: a name, say, whose owner's home was asked for. Adds nothing until it is trained."""

    def __init__(self, config: LPMConfig, pools: int = 4) -> None:
        super().__init__()
        size = config.query_size
        self.scores = nn.Linear(config.slot_size, pools)
        self.inner, self.out = nn.Linear(size + pools * config.slot_size, 2 * size), nn.Linear(2 * size, size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, query: Tensor, found: Tensor) -> Tensor:
        """Messages [B, Q, query_size] and the slots that a read found [B, G, Q, d_mem] -> messages [B, Q, query_size]."""
        pooled = torch.einsum("bgqp,bgqm->bqpm", self.scores(found).softmax(1), found).flatten(2)
        added = self.out(F.gelu(self.inner(torch.cat([query, pooled], -1))))
        return F.rms_norm(query + added, (query.shape[-1],))


class SoftPromptProjection(nn.Module):
    """The paper's shared projection network, H heads with weights of their own.

    Besides the user's slots every head sees one learned slot, the same for all users: where nothing fits, attention
    rests there, and it is all that a user without a history has.
    """

    def __init__(self, config: LPMConfig) -> None:
        super().__init__()
        heads, slot, key, width = config.banks, config.slot_size, config.key_size, config.backbone_size
        self.config = config
        self.encode = Pooling(config, config.query_size)
        self.w_q = nn.Parameter((torch.randn(config.query_size, key) / math.sqrt(config.query_size)).repeat(heads, 1, 1))
        self.w_k = nn.Parameter((torch.randn(slot, key) / math.sqrt(slot)).repeat(heads, 1, 1))
        self.w_v = nn.Parameter(torch.randn(heads, slot, width) / math.sqrt(slot))
        self.sharpness = nn.Parameter(torch.tensor(4.0)) if config.agree else None
        self.recency = nn.Linear(config.query_size, 1) if config.recency else None
        self.hop = _Hop(config) if config.reads > 1 else None
        self.empty_slot = nn.Parameter(torch.randn(heads, 1, slot) * 0.02)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.gain = nn.Parameter(torch.ones(config.heads, width))
        self.bias = nn.Parameter(torch.zeros(config.heads, width))
        if self.recency is not None:
            nn.init.zeros_(self.recency.weight)
            nn.init.zeros_(self.recency.bias)
        nn.init.zeros_(self.mlp[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.mlp[2].bias)  # type: ignore[arg-type]

    def forward(self, query: Tensor, slots: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Messages of B users and the slots that each may read.

        query: e(x) [B, query_size], or [B, Q, query_size] for Q messages of each user; slots: [B, H / reads, N, d_mem], the oldest first;
        mask: [B, N] or [B, Q, N], true where a slot may be read (None: all may).
        Returns soft tokens [B, H, d] and log attention [B, H, 1 + N], the shared empty slot first; with Q messages
        [B, Q, H, d] and [B, Q, H, 1 + N].
        """
        if query.dim() == 2:
            soft, log_attention = self(query[:, None], slots, mask)
            return soft[:, 0], log_attention[:, 0]
        return self.read(query, slots, mask)[:2]

    def read(self, query: Tensor, slots: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What Q messages of each user give: soft tokens and log attention as above, and `attention` of each read in turn."""
        slots = self._with_empty(slots)
        reads = self._reads(query, slots, mask)
        read = torch.stack([found for _, found in reads], 1)  # [B, R, G, Q, d_mem]; values are linear: mix slots, then W_V
        mixed = torch.einsum("brgqm,gmd->bqrgd", read, self.w_v)
        mixed = F.layer_norm(mixed + self.mlp(mixed), (mixed.shape[-1],))
        groups = (self.config.reads, self.config.banks, -1)
        soft = mixed * self.gain.view(groups) + self.bias.view(groups)  # [B, Q, R, G, d]
        log_attention = ranked = self._in_turn(reads)
        if len(reads) > 1:
            order = log_attention[:, :, :, 0].argmax(-1).sort(dim=-1, stable=True).indices[..., None, None]  # [B, Q, R, 1, 1]
            soft, log_attention = (values.gather(2, order.expand_as(values)) for values in (soft, log_attention))
        return soft.flatten(2, 3), log_attention.expand(-1, -1, -1, self.config.banks, -1).flatten(2, 3), ranked

    def attention(self, query: Tensor, slots: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log attention alone of each read in turn, [B, Q, R, G, 1 + N], of messages [B, Q, query_size]; G is 1 where heads agree."""
        return self._in_turn(self._reads(query, self._with_empty(slots), mask))

    @staticmethod
    def _in_turn(reads: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Log attention of reads as they came: [B, Q, R, G or 1, 1 + N]."""
        return torch.stack([attention for attention, _ in reads], 1).transpose(1, 3).transpose(2, 3)

    def _with_empty(self, slots: Tensor) -> Tensor:
        return torch.cat([self.empty_slot.expand(slots.shape[0], -1, -1, -1), slots], dim=2)  # [B, G, 1+N, d_mem]

    def _reads(self, query: Tensor, slots: Tensor, mask: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Log attention [B, G or 1, Q, 1 + N] of each read, and what it finds [B, G, Q, d_mem]."""
        if mask is not None and mask.dim() == 2:
            mask = mask[:, None]  # [B, 1 or Q, N]
        attention = self._attend(query, slots, mask)
        if self.hop is None:
            return [(attention, attention.exp().to(slots.dtype) @ slots)]
        reads: list[tuple[Tensor, Tensor]] = []
        mask = slots.new_ones(1, 1, slots.shape[2] - 1, dtype=torch.bool) if mask is None else mask
        while True:
            picked = F.one_hot(attention.argmax(-1), attention.shape[-1])  # [B, 1, Q, 1+N]
            soft = attention.exp()
            found = (picked + soft - soft.detach()).to(slots.dtype) @ slots
            reads.append((attention, found))
            if len(reads) == self.config.reads:
                return reads
            query = self.hop(query, found)
            mask = mask & ~picked[:, 0, :, 1:].bool()
            attention = self._attend(query, slots, mask)

    def _attend(self, query: Tensor, slots: Tensor, mask: Tensor | None) -> Tensor:
        """Log attention [B, G, Q, 1 + N] over the empty slot and the user's, those of the mask [B, 1 or Q, N] alone; G is 1 where heads agree."""
        q = torch.einsum("bqe,gek->bgqk", query, self.w_q)
        sought = torch.einsum("bgqk,gmk->bgqm", q, self.w_k)  # q (W_K M)^T = (q W_K^T) M^T, which needs no keys
        scores = (sought @ slots.transpose(2, 3)).float() / math.sqrt(self.config.key_size)  # [B, G, Q, 1+N]
        if self.sharpness is not None:
            scores = scores.mean(1, keepdim=True) * self.sharpness
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
