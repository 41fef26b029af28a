"""Arms that leave out a part of LPM, with the weights as they were trained: what an answer owes to it.

lpm@H keeps the first H soft tokens, and lpm_slots@N lets a user have N slots. lpm_static reads the slots with one message whatever is asked:
soft tokens that do not depend on the question. lpm_window puts a little small talk between soft tokens and question, and lpm_message the
soft tokens behind it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from lpm_core.engine import LPM
from lpm_integrations.bench.arms import Arm, LPMArm, Prompt
from lpm_integrations.bench.cases import Case, TestQuestion

__all__ = ["ablated_arm"]

_ANYTHING: Final = "What do you know about me?"
_TALK: Final = (("user", "Good morning! It's raining again."), ("assistant", "Stay dry!"), ("user", "Thanks."), ("assistant", "You're welcome."))


def ablated_arm(kind: str, engine: LPM, folder: Path, max_new_tokens: int, number: int | None) -> Arm:
    """An arm of this module by its kind and, of "lpm" and "lpm_slots", its number."""
    if kind == "lpm_slots":
        return LPMArm(LPM(engine.backbone, engine.weights, engine.store, num_slots=number), folder, max_new_tokens)
    if kind == "lpm":
        return _Fewer(engine, folder, max_new_tokens, number or 0)
    return (_Static if kind == "lpm_static" else _Late if kind == "lpm_message" else _Early)(engine, folder, max_new_tokens)


class _Fewer(LPMArm):
    """The first soft tokens alone."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, heads: int) -> None:
        super().__init__(engine, folder, max_new_tokens)
        self._heads = heads

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        whole = super().prompt(case, question, room)
        kept = min(self._heads, whole.soft)
        return Prompt(torch.cat([whole.embeds[:kept], whole.embeds[whole.soft :]]), kept, whole.retrieved)


class _Static(LPMArm):
    """The same soft tokens for every question of a user."""

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        whole = super().prompt(case, question, room)
        soft = self.engine.recall(case.user_id, _ANYTHING).soft_prompt.to(whole.embeds.dtype)
        return Prompt(torch.cat([soft, whole.embeds[whole.soft :]]), len(soft))


class _Early(LPMArm):
    """Small talk between the soft tokens and the question."""

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        messages = [{"role": role, "content": content} for role, content in _TALK]
        return self._read(case, [*messages, {"role": "user", "content": question.text}], room)


class _Late(_Early):
    """The soft tokens between small talk and question."""

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        early, asked = super().prompt(case, question, room), LPMArm.prompt(self, case, question, room)
        soft, talk = early.embeds[: early.soft], early.embeds[early.soft : len(early.embeds) - (len(asked.embeds) - asked.soft)]
        return Prompt(torch.cat([talk, soft, asked.embeds[asked.soft :]]), early.soft, early.retrieved)
