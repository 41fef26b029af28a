"""The write path: a chunk of dialogue becomes a page of slots in one pass.

A chunk is cut into segments of a few dozen tokens, never across turns, and with `LPMConfig.sentence_tokens` never across
sentences. Each segment gives every head one slot: what a slot says is known to come from one turn. Head h starts out as a copy of the segment's h-th token and learns
what else to take along. The last numbers of a slot start out as the segment's address, the same for all heads: what the
read path finds it by.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpm_core.chat import ChatFormat
from lpm_core.pooling import AttentionLayer, Pooling, principal_directions
from lpm_core.settings import LPMConfig

__all__ = ["Chunk", "SlotWriter", "cut_chunks"]

_SENTENCE_ENDS = (".", "!", "?", "\n", ";")
_ABBREVIATED = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|mt|jr|sr|prof|rev|gen|col|capt|sgt|lt|no|vs|etc|e\.g|i\.e)|(?<![A-Za-z])[A-HJ-Za-z])\.$", re.IGNORECASE)
_LOOK_BACK = 6  # tokens that tell whether a full stop is that of an abbreviation


@dataclass(frozen=True)
class Chunk:
    """Tokens of one page: the ids, and for each segment its span among them and the number of its turn."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    turns: tuple[int, ...]


def _sentences(ids: Sequence[int], least: int, chat: ChatFormat) -> list[tuple[int, int]]:
    """Spans of whole sentences, each of at least `least` tokens: a shorter one goes with the next, or at the end with the one before."""
    texts = [chat.decode([token]) for token in ids]
    spans: list[tuple[int, int]] = []
    start = 0
    for end in range(least, len(ids) - least + 1):
        ends = texts[end - 1].endswith("\n") or (texts[end - 1].endswith(_SENTENCE_ENDS) and texts[end].startswith((" ", "\n")))
        if ends and end - start >= least and not _ABBREVIATED.search("".join(texts[max(start, end - _LOOK_BACK) : end])):
            spans.append((start, end))
            start = end
    return [*spans, (start, len(ids))]


def _segments(ids: Sequence[int], chat: ChatFormat, config: LPMConfig) -> list[tuple[int, int]]:
    """Spans of a turn's segments."""
    sentences = _sentences(ids, config.sentence_tokens, chat) if config.sentence_tokens else [(0, len(ids))]
    return [(start + first, start + last) for start, stop in sentences for first, last in _pieces(ids[start:stop], config.segment_tokens, chat)]


def _pieces(ids: Sequence[int], limit: int, chat: ChatFormat) -> list[tuple[int, int]]:
    """Spans of at most `limit` tokens: cut in the second half, after a sentence where one ends there, else between words; within brackets only if need be."""
    spans: list[tuple[int, int]] = []
    start = 0
    while len(ids) - start > limit:
        places = range(start + limit, start + limit // 2, -1)
        texts = {end: chat.decode(ids[start:end]) for end in places}
        candidates = [end for end in places if texts[end].count("(") <= texts[end].count(")")] or places
        stop = next((end for end in candidates if chat.decode(ids[end - 1 : end]).endswith(_SENTENCE_ENDS)), None)
        stop = stop or next((end for end in candidates if chat.decode(ids[end : end + 1]).startswith(" ")), start + limit)
        spans.append((start, stop))
        start = stop
    if start < len(ids):
        spans.append((start, len(ids)))
    return spans


def cut_chunks(turns: Sequence[tuple[str, str]], chat: ChatFormat, config: LPMConfig) -> list[Chunk]:
    """Cut a session's turns (role, content) into chunks of at most `chunk_tokens`; depends on nothing but them.

    All chunks but the last stay as they are when turns are added. A turn too long for a chunk goes on in the next.
    """
    chunks: list[Chunk] = []
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    owners: list[int] = []

    def close() -> None:
        if spans:
            chunks.append(Chunk(tuple(ids), tuple(spans), tuple(owners)))
        ids.clear()
        spans.clear()
        owners.clear()

    for number, (role, content) in enumerate(turns):
        encoded = chat.content(content)
        frame = len(chat.turn(role, ())[0])
        pieces = _segments(encoded, chat, config)
        done = 0
        while done < len(pieces):
            begin, room = pieces[done][0], config.chunk_tokens - len(ids) - frame
            if ids and pieces[-1][1] - begin > room:  # only a turn that has a chunk of its own is cut
                close()
                continue
            until = max(done + 1, bisect_right(pieces, begin + room, lo=done, key=lambda span: span[1]))
            fitting, done = pieces[done:until], until
            wrapped, offset = chat.turn(role, encoded[begin : fitting[-1][1]])
            spans += [(len(ids) + offset + first - begin, len(ids) + offset + last - begin) for first, last in fitting]
            owners += [number] * len(fitting)
            ids += wrapped
    close()
    return chunks


class SlotWriter(nn.Module):
    """Learned queries, one per head, cross-attend to each segment's hidden states.

    One attention head in each layer leans to the query's own place in the segment (head h to token h, wrapping around
    in short segments), so that exact strings can be copied; the others look freely.
    """

    def __init__(self, config: LPMConfig) -> None:
        super().__init__()
        size = config.writer_size
        self.config = config
        self.source = nn.Linear(2 * config.backbone_size, size)
        self.queries = nn.Parameter(torch.randn(config.banks, size) * 0.5)
        self.place = nn.Parameter(torch.tensor(6.0))
        self.layers = nn.ModuleList(AttentionLayer(size, config.writer_heads) for _ in range(config.writer_layers))
        self.out = nn.Linear(size, config.slot_size)
        self.copy = nn.Linear(config.backbone_size, config.slot_size, bias=False)
        self.address = Pooling(config, config.address_size) if config.address_size else None
        nn.init.normal_(self.out.weight, std=0.3 / math.sqrt(size))

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Segments [S, L, 2d] (token embedding and lower layer, RMS-normalised), their lengths [S] -> slots [G, S, d_mem]."""
        segments, longest = states.shape[:2]
        position = torch.arange(longest, device=states.device)
        inside = position < lengths[:, None]  # [S, L]
        head = torch.arange(self.config.banks, device=states.device)
        own = (head % lengths[:, None])[..., None] == position  # [S, H, L]
        bias = torch.zeros(segments, self.config.writer_heads, self.config.banks, longest, device=states.device)
        bias[:, 0] = own * self.place
        bias = bias.masked_fill(~inside[:, None, None], float("-inf"))
        source = self.source(states)
        x = self.queries.expand(segments, -1, -1)
        for layer in self.layers:
            x = layer(x, source, bias)
        copied = torch.einsum("shl,slm->shm", own.to(states.dtype), self.copy(states[..., : self.config.backbone_size]))
        slots: Tensor = copied + self.out(F.rms_norm(x, (x.shape[-1],)))
        return slots.transpose(0, 1) + self.addresses(states, lengths)

    def addresses(self, states: Tensor, lengths: Tensor) -> Tensor:
        """What every head's slot has in common, [1, S, d_mem]: zero but for the address, the last numbers of a slot."""
        if self.address is None:
            return states.new_zeros(1, states.shape[0], self.config.slot_size)
        inside = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return F.pad(self.address(states, inside), (self.config.slot_size - self.config.address_size, 0))[None]

    @torch.no_grad()
    def start_from(self, embeddings: Tensor) -> None:
        """Begin by copying the main directions of the backbone's token embeddings [V, d]."""
        words = self.config.slot_size - self.config.address_size
        self.copy.weight.zero_()
        self.copy.weight[:words] = principal_directions(embeddings, words)


def gather_segments(states: Tensor, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor]:
    """Hidden states of chunks [C, T, 2d] cut into their segments: [S, L, 2d] and lengths [S], chunk after chunk."""
    rows = [(number, first, last) for number, chunk in enumerate(chunks) for first, last in chunk.spans]
    lengths = torch.tensor([last - first for _, first, last in rows], device=states.device)
    longest = int(lengths.max())
    index = torch.tensor([first for _, first, _ in rows], device=states.device)[:, None] + torch.arange(longest, device=states.device)
    index = index.clamp(max=states.shape[1] - 1)
    owner = torch.tensor([number for number, _, _ in rows], device=states.device)[:, None]
    return states[owner, index], lengths
