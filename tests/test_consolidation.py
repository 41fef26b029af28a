"""Consolidation: refined slots replace old ones only if they are no worse, and never lose what arrives meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_model import make_tiny, tiny_weights

from lpm_core import LPM, UnknownUserError
from lpm_core import engine as engine_module
from lpm_core.backbone import Backbone
from lpm_core.consolidation import ConsolidationRecipe, Study, _parts, distill, self_study
from lpm_core.memory import Page, UserMemory
from lpm_core.store import MemoryStore

_RECIPE = ConsolidationRecipe(steps=6, questions=2)
_STUDIOUS = ConsolidationRecipe(steps=2, questions=12, question_tokens=12, answer_tokens=6)


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

    starts = [tuple(lpm.backbone.chat.content(text)) for text in ConsolidationRecipe().starts]
    assert studies
    for study in studies:
        assert any(study.question[: len(start)] == start for start in starts)
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


def test_a_long_history_is_studied_in_parts_without_what_the_bare_backbone_says_too(lpm: LPM) -> None:
    chat = lpm.backbone.chat
    lpm.remember("ann", [{"role": "user", "content": text} for number in range(40) for text in (f"I live in Lisbon for {number} years.", "It rains.")])

    studies = lpm.self_study("ann", ConsolidationRecipe(questions=1))

    assert studies
    for study in studies:
        asked = [*chat.turn("user", study.question)[0], *chat.markup("<|im_start|>assistant\n")]
        said = chat.decode(list(lpm.backbone.generate(lpm.backbone.embed(asked), max_new_tokens=16)))
        assert said.strip() != chat.decode(list(study.answer)).strip()


def test_parts_of_a_history_are_the_latest_first_and_go_on_into_what_was_said_later(lpm: LPM) -> None:
    chat = lpm.backbone.chat
    lpm.remember("ann", [{"role": "user", "content": f"I like town number {number}."} for number in range(10)])
    turns = lpm.turns("ann")
    rows = [chat.turn("user", chat.content(turn.content))[0] for turn in turns]

    parts = _parts(turns, chat, 4 * len(rows[0]))

    assert [told for _, told in parts] == [4, 4, 2]
    assert parts[0][0] == [token for row in rows[6:] for token in row]
    assert parts[2][0] == [token for row in rows[:4] for token in row]  # asked about two, with two more of what came then
    assert _parts(turns, chat, 10_000) == [([token for row in rows for token in row], 10)]
    assert _parts([], chat, 100) == []


@pytest.fixture(scope="module")
def terse_backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.load(make_tiny(tmp_path_factory.mktemp("terse"), seed=4, terse=True))


@pytest.fixture
def terse(terse_backbone: Backbone, url: str) -> Iterator[LPM]:
    """An engine that really studies, and whose slots are really promoted."""
    with LPM(terse_backbone, tiny_weights(terse_backbone), MemoryStore(url)) as engine:
        engine.remember("ann", [{"role": "user", "content": f"I like town number {number}."} for number in range(3)], session_id="kept")
        yield engine


def _equals_never_seen(engine: LPM) -> bool:
    """Whether memory is that of an engine which was told what is in the log now, and nothing else."""
    with engine.on_store("sqlite://") as never:
        never.store.import_turns("ann", engine.turns("ann"))
        return torch.equal(_slots(engine.on_store(engine.store), "ann"), _slots(never, "ann"))


def test_the_terse_engine_promotes(terse: LPM) -> None:
    assert terse.consolidate("ann", _STUDIOUS).promoted
    assert not _equals_never_seen(terse)


@pytest.mark.parametrize("moment", ["while it learns", "before it promotes"])
def test_a_turn_forgotten_while_consolidation_runs_is_in_no_slot(terse: LPM, url: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = terse.remember("ann", "My secret is a swordfish.", session_id="other")
    reached, forgotten = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert forgotten.wait(60)

    def put_pages(*arguments: Any, **options: Any) -> bool:
        if not reached.is_set():
            wait()
        return MemoryStore.put_pages(terse.store, *arguments, **options)

    if moment == "before it promotes":
        monkeypatch.setattr(terse.store, "put_pages", put_pages)
    with LPM(terse.backbone, terse.weights, MemoryStore(url)) as elsewhere, ThreadPoolExecutor(1) as pool:
        running = pool.submit(terse.consolidate, "ann", _STUDIOUS, on_step=lambda _: wait() if moment == "while it learns" and not reached.is_set() else None)
        assert reached.wait(60)
        elsewhere.forget("ann", turn_ids=secret)
        forgotten.set()

        assert not running.result(60).promoted
    assert _equals_never_seen(terse)


def test_a_turn_that_came_and_went_while_consolidation_runs_is_in_no_slot(terse: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    with terse.on_store("sqlite://") as never:
        never.store.import_turns("ann", terse.turns("ann"))
        assert never.consolidate("ann", _STUDIOUS).promoted
        secret: list[str] = []

        def written(user_id: str) -> Any:  # the pages are read, the turns to study are not
            monkeypatch.undo()
            secret.extend(terse.remember(user_id, "My secret is a swordfish.", session_id="kept"))
            return terse._written(user_id)

        terse._memory("ann")
        monkeypatch.setattr(terse, "_written", written)
        report = terse.consolidate("ann", _STUDIOUS, on_step=lambda _: terse.forget("ann", turn_ids=secret) and None)

        assert secret
        assert report.promoted
        assert torch.equal(_slots(terse.on_store(terse.store), "ann"), _slots(never, "ann"))


def test_refined_pages_are_put_in_place_all_at_once(terse: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    terse.remember("ann", "My dog is Rex.", session_id="other")
    calls: list[set[str]] = []

    def put_pages(user_id: str, pages: Sequence[Page], **options: Any) -> bool:
        calls.append({page.session_id for page in pages})
        return MemoryStore.put_pages(terse.store, user_id, pages, **options)

    monkeypatch.setattr(terse.store, "put_pages", put_pages)
    assert any(terse.consolidate("ann", replace(_STUDIOUS, seed=seed)).promoted for seed in range(9))

    assert calls == [{"kept", "other"}]


def test_a_user_without_a_history_is_unknown(tiny: LPM) -> None:
    with pytest.raises(UnknownUserError, match="nobody"):
        tiny.consolidate("nobody")


async def test_the_async_twin_does_the_same(tiny: LPM) -> None:
    _told(tiny)

    assert (await tiny.aconsolidate("ann", _RECIPE)).user_id == "ann"


def test_what_is_refined_is_known_until_something_new_is_told(lpm: LPM) -> None:
    _told(lpm)
    assert not lpm.refined("ann")
    memory = lpm._memory("ann")[0]
    lpm._promote(replace(memory, pages=tuple(replace(page, slots=page.slots * 1.001) for page in memory.pages)))

    assert lpm.refined("ann")

    lpm.remember("ann", "I play the cello.", session_id="friday")
    assert not lpm.refined("ann")
