"""Consolidation: refined slots replace old ones only if they are no worse, and never lose what arrives meanwhile."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lpm_core import LPM, UnknownUserError
from lpm_core import engine as engine_module
from lpm_core.consolidation import ConsolidationRecipe, Study, distill, self_study
from lpm_core.memory import UserMemory

_RECIPE = ConsolidationRecipe(steps=6, questions=2)


def _slots(lpm: LPM, user: str) -> torch.Tensor:
    return lpm._memory(user)[1].values.clone()


def _told(lpm: LPM, user: str = "ann") -> None:
    lpm.remember(user, "I live in Lisbon.", session_id="monday")
    lpm.remember(user, [{"role": "user", "content": "My dog is called Rex."}, {"role": "assistant", "content": "Nice!"}], session_id="tuesday")


def _studies(lpm: LPM, user: str) -> list[Study]:
    return self_study(lpm.turns(user, session_id="tuesday"), lpm.backbone, ConsolidationRecipe(questions=8), random.Random(0))


def test_self_study_asks_about_turns_and_answers_with_a_distribution(lpm: LPM) -> None:
    _told(lpm)

    studies = _studies(lpm, "ann")

    assert studies
    for study in studies:
        assert study.answer[-1] in lpm.backbone.ends
        assert study.top.shape == study.logs.shape
        assert study.top[:, 0].tolist() == list(study.answer)
        assert bool((study.logs.exp().sum(-1) <= 1.0001).all())


def test_distilled_slots_come_closer_to_the_teacher_on_what_they_learn(lpm: LPM) -> None:
    _told(lpm)
    memory = lpm._memory("ann")[0]
    studies = _studies(lpm, "ann")
    recipe = ConsolidationRecipe(steps=30)

    (refined, report), *_ = distill([memory], [studies], lpm.weights, lpm.backbone, recipe)

    assert report.questions == len(studies)
    assert [page.slot_turns for page in refined.pages] == [page.slot_turns for page in memory.pages]
    if report.promoted:
        assert report.after >= report.before
        assert not torch.equal(refined.pages[-1].slots, memory.pages[-1].slots)
    else:
        assert refined is memory


def _forced(monkeypatch: pytest.MonkeyPatch, meanwhile: Any = lambda: None) -> None:
    """Distillation that adds 1 to every slot and is promoted; `meanwhile` happens while it runs."""

    def fake(memories: Sequence[UserMemory], studies: Any, weights: Any, backbone: Any, recipe: Any, on_step: Any) -> Any:
        meanwhile()
        rows = distill(memories, [[] for _ in memories], weights, backbone, recipe, on_step)
        from dataclasses import replace

        return [
            (replace(memory, pages=tuple(replace(page, slots=page.slots + 1) for page in memory.pages)), replace(report, promoted=True))
            for memory, report in rows
        ]

    monkeypatch.setattr(engine_module, "distill", fake)


def test_promoted_slots_are_used_and_survive_reopening(tiny: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(tiny)
    before = _slots(tiny, "ann")
    _forced(monkeypatch)

    assert tiny.consolidate("ann", _RECIPE).promoted

    assert torch.equal(_slots(tiny, "ann"), before + 1)
    assert torch.equal(_slots(tiny.on_store(tiny.store), "ann"), before + 1)


def test_what_arrives_meanwhile_is_kept(tiny: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(tiny)
    before = _slots(tiny, "ann")
    _forced(monkeypatch, lambda: tiny.remember("ann", "I have a cat.", session_id="wednesday") and None)

    tiny.consolidate("ann", _RECIPE)

    after = _slots(tiny, "ann")
    assert torch.equal(after[:, : before.shape[1]], before + 1)
    assert after.shape[1] > before.shape[1]
    assert [turn.content for turn in tiny.turns("ann")][-1] == "I have a cat."


def test_an_interrupted_consolidation_leaves_the_old_slots(tiny: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(tiny)
    before = _slots(tiny, "ann")

    def interrupt() -> None:
        raise KeyboardInterrupt

    _forced(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.consolidate("ann", _RECIPE)

    assert torch.equal(_slots(tiny, "ann"), before)


def test_forgetting_after_consolidation_equals_never_having_seen(tiny: LPM, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(tiny)
    _forced(monkeypatch)
    tiny.consolidate("ann", _RECIPE)

    tiny.forget("ann", turn_ids=[turn.id for turn in tiny.turns("ann", session_id="tuesday")])

    with tiny.on_store(f"sqlite:///{tmp_path / 'never.db'}") as never:
        never.remember("ann", "I live in Lisbon.", session_id="monday")
        assert torch.equal(_slots(tiny, "ann"), _slots(never, "ann"))


def test_a_user_without_a_history_is_unknown(tiny: LPM) -> None:
    with pytest.raises(UnknownUserError, match="nobody"):
        tiny.consolidate("nobody")


async def test_the_async_twin_does_the_same(tiny: LPM) -> None:
    _told(tiny)

    assert (await tiny.aconsolidate("ann", _RECIPE)).user_id == "ann"
