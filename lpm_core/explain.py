"""A look inside one recall: what each soft token says, and which turn it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lpm_core.backbone import Backbone
from lpm_core.memory import Evidence, Recall, Slots, Turn

__all__ = ["Explanation", "SoftToken", "explain_recall"]


@dataclass(frozen=True)
class SoftToken:
    """One soft token: its head, the word of the backbone nearest to it, and the slot that its attention rests on most.

    `turn_id` None stands for the learned slot that all users share: nothing in this memory fits. `weight` is that
    slot's share of the head's attention. Of a slot that was merged, the oldest turn stands for all.
    """

    head: int
    word: str
    turn_id: str | None
    weight: float


@dataclass(frozen=True)
class Explanation:
    """What memory makes of a question. Printed, it is a table for a person."""

    question: str
    soft_tokens: Sequence[SoftToken]
    evidence: Sequence[Evidence]

    def __str__(self) -> str:
        lines = [f"question  {self.question}", "soft path " + " ".join(token.word for token in self.soft_tokens)]
        lines += [f"turn      {item.weight:5.1%}  {item.turn.role}: {_short(item.turn)}" for item in self.evidence]
        empty = sum(token.turn_id is None for token in self.soft_tokens)
        lines.append(f"{len(self.soft_tokens)} soft tokens, of which {empty} rest on no turn")
        return "\n".join(lines)


def _short(turn: Turn, length: int = 100) -> str:
    text = " ".join(turn.content.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


@torch.inference_mode()
def explain_recall(question: str, recall: Recall, slots: Slots, backbone: Backbone) -> Explanation:
    """Name what each soft token [H, d] is nearest to (cosine over token embeddings), and its top slot [H, N]."""
    embeddings = torch.nn.functional.normalize(backbone.embeddings.float(), dim=-1)
    nearest = (torch.nn.functional.normalize(recall.soft_prompt.float(), dim=-1) @ embeddings.T).argmax(-1)
    tokens: list[SoftToken] = []
    for head, (word, weights) in enumerate(zip(nearest.tolist(), recall.slot_weights, strict=True)):
        top = int(weights.argmax()) if len(weights) else None
        weight = float(weights[top]) if top is not None else 0.0
        shared = 1.0 - float(weights.sum())  # what attention leaves to the slot of all users
        own = top is not None and weight >= shared
        tokens.append(
            SoftToken(head, backbone.chat.decode([word]).strip() or "·", slots.turns[top][0] if own and top is not None else None, max(weight, shared))
        )
    return Explanation(question, tokens, recall.evidence)
