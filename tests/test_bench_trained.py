"""Arms that train something for each user: they learn, one user's is not another's, and the frozen backbone stays as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean

import pytest

from lpm_core import LPM, InvalidInputError
from lpm_core.backbone import Backbone
from lpm_integrations.bench.arms import Outcome, make_arm
from lpm_integrations.bench.cases import Case, HistoryTurn
from lpm_integrations.bench.cases import TestQuestion as Question
from lpm_integrations.bench.models import ChatAnswerer
from lpm_integrations.bench.trained import trained_arm

_HOME = Question("q", "Where do I live?", "Lisbon", 4)


def _case(user_id: str, *said: str) -> Case:
    return Case(user_id, tuple(HistoryTurn("s", "user", text, str(index)) for index, text in enumerate(said)), (_HOME,))


_ANN = (
    "I live in Lisbon, close to the harbour, and my sister Clara lives in Quito with her cat Momo.",
    "My dog is called Rex and he hates the vacuum cleaner, so I only clean on Tuesdays.",
    "We had the boiler repaired by Mr. Hansen for 240 euros, after the leak in the cellar.",
)
CASES = (_case("ann", *_ANN), _case("bob", "I live in Quito.", "My cat is called Momo."))


def _studied(engine: LPM, user_id: str) -> list[Question]:
    """A user's self-study as questions of a benchmark."""
    chat = engine.backbone.chat
    pairs = [(chat.decode(list(study.question)).strip(), chat.decode(list(study.answer[:-1])).strip()) for study in engine.self_study(user_id)]
    return [Question("own", text, gold, 4) for text, gold in pairs if text and gold]


def _loss(outcomes: Sequence[Outcome]) -> float:
    return fmean(outcome.nll for outcome in outcomes if outcome.nll is not None)


def _fingerprint(engine: LPM) -> str:
    """Of the weights as they are now."""
    return Backbone(engine.backbone.model, engine.backbone.chat, name="again", layer=engine.backbone.layer).fingerprint


@pytest.fixture
def engine(embedded: LPM) -> Iterator[LPM]:
    """The embedded default on a store of its own: adapters learn in the arms, from what the model itself asks and answers."""
    with embedded.on_store("sqlite://") as opened:
        yield opened


@pytest.mark.parametrize("name", ["lpm+consolidated", "lora", "prompt_tuning"])
def test_a_trained_arm_learns_each_user_apart_and_leaves_the_backbone_alone(name: str, engine: LPM, tmp_path: Path) -> None:
    before = _fingerprint(engine)

    with (
        closing(make_arm("lpm" if name == "lpm+consolidated" else "none", engine, tmp_path, 8)) as untrained,
        closing(trained_arm(name, engine, tmp_path, 8, None, steps=20)) as arm,
    ):
        for case in CASES:
            arm.write(case)
            untrained.write(case)
        arm.ready()
        own = _studied(arm.engine, "ann")
        ann, bob = ([arm.answer(case, question) for question in own] for case in CASES)
        before_training = [untrained.answer(CASES[0], question) for question in own]

    assert _loss(ann) < min(_loss(bob), _loss(before_training))
    assert {outcome.soft_tokens for outcome in (*ann, *bob)} == {0 if name == "lora" else engine.weights.config.heads}
    assert [outcome.prompt_tokens for outcome in ann] == [outcome.prompt_tokens for outcome in before_training]
    assert _fingerprint(engine) == before


def test_a_trained_arm_is_the_same_each_time(engine: LPM, tmp_path: Path) -> None:
    answers = []
    for _ in range(2):
        with closing(trained_arm("prompt_tuning", engine, tmp_path, 8, None, steps=3)) as arm:
            arm.write(CASES[0])
            answers.append(arm.answer(CASES[0], _HOME).nll)

    assert answers[0] == answers[1]


def test_a_history_that_raises_no_question_is_no_error(tiny: LPM, tmp_path: Path) -> None:
    empty = Case("eve", (HistoryTurn("s", "assistant", "Hello.", "0"),), (_HOME,))

    for name in ("lora", "prompt_tuning", "lpm+consolidated"):
        with closing(make_arm(name, tiny, tmp_path, 4)) as arm:
            arm.write(empty)
            arm.ready()
            assert arm.answer(empty, _HOME).nll is not None


def test_no_other_model_can_read_what_was_trained(tiny: LPM, tmp_path: Path) -> None:
    answerer = object.__new__(ChatAnswerer)  # never called

    with pytest.raises(InvalidInputError, match="--answerer"):
        make_arm("lora", tiny, tmp_path, 4, answerer)
