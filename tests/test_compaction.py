"""Slots within a budget: what is merged, what stays, and that nothing is lost."""

import itertools

import pytest
import torch

from lpm_core import LPM
from lpm_core.compaction import compact
from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Slots


def _slots(values: torch.Tensor) -> Slots:
    return Slots(values, tuple((f"t{number}",) for number in range(values.shape[1])))


@pytest.mark.parametrize(("count", "budget"), [(2, 1), (9, 4), (40, 39), (3000, 1100), (1025, 1)])
def test_slots_fit_the_budget_and_keep_every_turn(count: int, budget: int) -> None:
    slots = _slots(torch.randn(2, count, 12, generator=torch.Generator().manual_seed(0)))

    small = compact(slots, budget, address_size=4)

    assert small.values.shape == (2, budget, 12)
    assert sorted(itertools.chain(*small.turns)) == sorted(itertools.chain(*slots.turns))
    assert small.values.isfinite().all()


def test_what_is_within_the_budget_is_left_alone() -> None:
    slots = _slots(torch.randn(2, 6, 12))

    assert compact(slots, 6, address_size=4) is slots


def test_the_most_alike_of_the_older_are_merged_and_the_newest_stay() -> None:
    values = torch.eye(8)[None].repeat(2, 1, 1)
    values[:, 2] = 3 * values[:, 0]

    small = compact(_slots(values), 7, address_size=0)

    assert small.turns[0] == ("t0", "t2")
    assert torch.allclose(small.values[:, 0], 2 * values[:, 0])
    assert torch.equal(small.values[:, 2:], values[:, 4 - 1 :])


def test_equal_slots_are_merged() -> None:
    small = compact(_slots(torch.ones(2, 5000, 8)), 10, address_size=3)

    assert small.values.shape[1] == 10
    assert torch.allclose(small.values, torch.ones(2, 10, 8))


def test_a_user_reads_no_more_slots_than_the_budget(lpm: LPM) -> None:
    small = LPM(lpm.backbone, lpm.weights, lpm.store, num_slots=5)
    for number in range(20):
        small.remember("ana", [{"role": "user", "content": f"I was in town number {number}."}], session_id=f"s{number}")

    recall = small.recall("ana", "Where was I?", k=20, floor=0.0)

    assert recall.slot_weights.shape[1] == 5
    assert len(recall.evidence) == 20  # each turn is behind some slot
    assert lpm.recall("ana", "Where was I?").slot_weights.shape[1] == 20  # the pages are whole
    assert small.explain("ana", "Where was I?").soft_tokens


def test_forgetting_beyond_the_budget_leaves_what_was_never_told(lpm: LPM) -> None:
    small = LPM(lpm.backbone, lpm.weights, lpm.store, num_slots=3)
    for user in ("ana", "ben"):
        for number in range(6):
            small.remember(user, [{"role": "user", "content": f"I was in town number {number}."}], session_id=f"s{number}")
    [secret] = small.remember("ana", [{"role": "user", "content": "My code is 1234."}], session_id="secret")

    small.forget("ana", turn_ids=[secret])

    assert torch.equal(small.slots("ana").values, small.slots("ben").values)


def test_a_budget_below_one_is_refused(lpm: LPM) -> None:
    with pytest.raises(InvalidInputError, match="num_slots"):
        LPM(lpm.backbone, lpm.weights, lpm.store, num_slots=0)
