"""What writer and projection share: an attention layer, and texts pooled into vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpm_core.settings import LPMConfig

__all__ = ["AttentionLayer", "Pooling", "principal_directions"]


class AttentionLayer(nn.Module):
    """Queries look at a source, then think."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = nn.Linear(size, size), nn.Linear(size, 2 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def start_as_nothing(self) -> None:
        """Let the layer add nothing until it is trained."""
        for linear in (self.out, self.down):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, source: Tensor, bias: Tensor) -> Tensor:
        """x [S, H, w], source [S, L, w], bias [S, heads or 1, H or 1, L] added to attention scores -> [S, H, w]."""
        segments, queries, size = x.shape
        q = self.query(F.rms_norm(x, (size,))).view(segments, queries, self.heads, -1).transpose(1, 2)
        k, v = (part.view(segments, -1, self.heads, size // self.heads).transpose(1, 2) for part in self.key_value(source).chunk(2, -1))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        x = x + self.out(attended.transpose(1, 2).reshape(segments, queries, size))
        x = x + self.down(F.gelu(self.up(F.rms_norm(x, (size,)))))
        return x


class Pooling(nn.Module):
    """Hidden states of a text pooled into one vector by a few learned attention queries: e(x) of a message, the address of a segment."""

    def __init__(self, config: LPMConfig, size: int, pools: int = 8) -> None:
        super().__init__()
        width = config.query_size
        self.source = nn.Linear(2 * config.backbone_size, width)
        layers = [AttentionLayer(width, config.writer_heads) for _ in range(config.encoder_layers)]
        for layer in layers:
            layer.start_as_nothing()
        self.layers = nn.ModuleList(layers)
        self.scores = nn.Linear(width, pools)
        self.out = nn.Linear(pools * width, size)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, 2d] (token embedding and lower layer), mask [B, T] true at tokens -> [B, size]."""
        hidden = self.source(states)
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))[:, None, None]  # [B, 1, 1, T]
        for layer in self.layers:
            hidden = layer(hidden, F.rms_norm(hidden, (hidden.shape[-1],)), bias)
        hidden = F.gelu(hidden)
        weights = self.scores(hidden).masked_fill(~mask[..., None], float("-inf")).softmax(1)  # [B, T, pools]
        pooled = torch.einsum("btp,btw->bpw", weights, hidden).flatten(1)
        encoded: Tensor = self.out(pooled)
        return F.rms_norm(encoded, (encoded.shape[-1],))


def principal_directions(embeddings: Tensor, count: int) -> Tensor:
    """The `count` directions along which token embeddings [V, d] vary most, as rows of length 1: [count, d]."""
    centred = embeddings.float() - embeddings.float().mean(0)
    covariance = centred.T @ centred / len(centred)
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -min(count, covariance.shape[0]) :]
    return F.pad(directions.T, (0, 0, 0, count - directions.shape[1]))
