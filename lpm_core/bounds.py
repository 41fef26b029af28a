"""What slots may look like. A page outside is quarantined: its turns stay in the log, and it is left out of every answer."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Self

import torch

from lpm_core.exceptions import MemoryWeightsError
from lpm_core.memory import Page
from lpm_core.writer import SlotWriter

__all__ = ["SlotBounds"]

_log = logging.getLogger(__name__)

_FLOOR = 1e-3  # of the highest norm: what is below has been wiped, not written


@dataclass(frozen=True)
class SlotBounds:
    """The shape [G, S, d_mem] of a page's slots, and the norms that one slot may have."""

    banks: int
    slot_size: int
    low: float
    high: float

    @classmethod
    @torch.no_grad()
    def of(cls, writer: SlotWriter) -> Self:
        """The bounds of a writer, from its weights alone.

        What it reads is RMS-normalised, so a slot is at most |W_copy| sqrt(d) + |W_out| sqrt(w) + |b_out| + sqrt(address_size) long
        (spectral norms; w is the writer's width): no text whatever gives a longer one, and what is longer was not written from any.
        On the embedded default that is 59; slots from dialogue, code, random characters of many scripts and control characters have
        norms of 10.2 to 18.9 (median 13.4). Raises MemoryWeightsError.
        """
        config = writer.config
        if not all(bool(tensor.isfinite().all()) for tensor in writer.state_dict().values()):
            raise MemoryWeightsError("the memory weights hold numbers that are not finite; copy or train them again with `lpm train memory`")
        copied, written = (torch.linalg.matrix_norm(layer.weight.float(), 2).item() for layer in (writer.copy, writer.out))
        bias = writer.out.bias.float().norm().item()
        high = copied * math.sqrt(config.backbone_size) + written * math.sqrt(config.writer_size) + bias + math.sqrt(config.address_size)
        return cls(config.banks, config.slot_size, _FLOOR * high, high)

    def fault(self, page: Page) -> str | None:
        """Why a page may not be served; None if it may, or is in quarantine already."""
        slots = page.slots
        if page.quarantine is not None:
            return None
        if slots.dim() != 3 or (slots.shape[0], slots.shape[2]) != (self.banks, self.slot_size):
            return f"its slots have the shape {list(slots.shape)}, not [{self.banks}, S, {self.slot_size}]"
        if not page.slot_turns:
            return "it has no slots"
        norms = torch.linalg.vector_norm(slots.float(), dim=-1)  # [G, S]
        if not bool(norms.isfinite().all()):
            return "its slots are not finite"
        outside = norms[(norms < self.low) | (norms > self.high)]
        if len(outside):
            return f"{len(outside)} of its {norms.numel()} slots have a norm outside {self.low:.3g} to {self.high:.3g}, one of {outside[0].item():.3g}"
        return None

    def checked(self, page: Page) -> Page:
        """The page itself, or what stands for it while it is in quarantine."""
        reason = self.fault(page)
        if reason is None:
            return page
        _log.warning("put a page of %d turn(s) in quarantine: %s; `lpm quarantine USER` lists what is there", len(page.turn_ids), reason)
        return replace(page, slots=torch.zeros(self.banks, 0, self.slot_size), slot_turns=(), quarantine=reason)
