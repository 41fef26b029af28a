"""Relative times and their dates."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpm_core import LPM
from lpm_core.dates import resolve
from lpm_core.training.corpus import Corpus
from lpm_core.training.events import new_events
from lpm_core.training.people import UNKNOWN
from lpm_core.training.splits import data
from lpm_integrations.bench.cases import TEMPORAL, probe_cases
from lpm_integrations.langchain import LPMMemory

AT = datetime(2026, 11, 27, 23, tzinfo=UTC)  # a Friday


@pytest.mark.parametrize(
    ("said", "date"),
    [
        ("yesterday", "26 November 2026"),
        ("Last night", "26 November 2026"),
        ("the day before yesterday", "25 November 2026"),
        ("tomorrow morning", "28 November 2026"),
        ("last Friday", "20 November 2026"),
        ("this Friday", "27 November 2026"),
        ("next friday evening", "4 December 2026"),
        ("last week", "the week before 27 November 2026"),
        ("this past weekend", "the weekend before 27 November 2026"),
        ("next month", "December 2026"),
        ("last year", "2025"),
        ("two weeks ago", "13 November 2026"),
        ("a couple of months ago", "September 2026"),
        ("30 years ago", "1996"),
        ("a few days ago", "a few days before 27 November 2026"),
        ("a week from now", "4 December 2026"),
    ],
)
def test_relative_times_are_dated(said: str, date: str) -> None:
    assert resolve(f"It was {said}, I think.", AT) == f"It was {said} ({date}), I think."


@pytest.mark.parametrize("said", ["last week's news", "on Friday", "in May", "last summer", "99 years ago was it that year 1"])
def test_what_is_no_date_stays(said: str) -> None:
    at = datetime(50, 1, 1, tzinfo=UTC) if "99" in said else AT
    assert resolve(said, at) == said


@given(
    st.lists(st.sampled_from(["yesterday", "last", "Friday", "night", "two", "weeks", "ago", "(", ")", "this", "morning", "2026", "a few", "."]), max_size=12)
)
def test_resolving_once_more_changes_nothing(words: list[str]) -> None:
    once = resolve(" ".join(words), AT)
    assert resolve(once, AT) == once


def test_slots_hold_the_date_and_the_log_what_was_said(lpm: LPM) -> None:
    at = datetime(2023, 5, 8, tzinfo=UTC)
    lpm.remember("ann", "I painted the fence yesterday.", at=at)
    lpm.remember("bob", "I painted the fence yesterday (7 May 2023).")
    assert torch.equal(lpm.slots("ann").values, lpm.slots("bob").values)
    assert lpm.turns("ann")[0].content == "I painted the fence yesterday."
    for user in ("ann", "bob"):  # the session goes on, and its only page is written anew
        lpm.remember(user, "It is green.", at=at)
    assert torch.equal(lpm.slots("ann").values, lpm.slots("bob").values)


def test_people_are_asked_when_they_did_what_they_told() -> None:
    for split in ("train", "validation", "test"):
        found = [question for person in Corpus(split).people(1, 40, 3, questions=6, dates=3) for question in person.questions if question.kind == "dated"]
        assert len(found) > 60
    for person in Corpus("test").people(1, 40, 3, questions=6, dates=3):
        for question in person.questions:
            if question.kind == "dated":
                assert question.evidence is not None
                assert question.answer in person.dated[question.evidence][1]
                assert question.answer not in person.turns[question.evidence][1]


def test_events_and_their_frames_are_held_out() -> None:
    train, test = ({event.did for number in range(80) for event in new_events(split, 3, str, random.Random(number))} for split in ("train", "test"))
    assert not train & test
    asked = {split: " ".join(q.text for p in Corpus(split).people(2, 60, 1, questions=4, dates=3) for q in p.questions) for split in ("train", "test")}
    for frames in ("asked", "asked_before"):
        for frame in data("events.toml")[frames][-2:]:
            assert frame.partition("{")[0] not in asked["train"]


def test_dated_probes_are_of_the_temporal_category_and_every_arm_sees_the_dates() -> None:
    case = next(probe_cases(1, 0, 2, 6, dates=3))
    dated = [question for question in case.questions if question.category == TEMPORAL]
    assert dated
    for question in dated:
        assert question.gold != UNKNOWN
        assert sum(str(question.gold) in turn.dated for turn in case.turns) >= 1


def test_other_models_read_the_dates_too(lpm: LPM) -> None:
    lpm.remember("ann", "I painted the fence yesterday.", at=datetime(2023, 5, 8, tzinfo=UTC))
    memory = LPMMemory("ann", engine=lpm, window=0, recall="text")
    assert "- I painted the fence yesterday (7 May 2023)." in memory.load_memory_variables({"input": "When did I paint the fence?"})["history"]
