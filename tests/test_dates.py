"""Relative times and their dates."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpm_core import LPM
from lpm_core.checkpoint import MemoryWeights
from lpm_core.dates import VERSION, resolve
from lpm_core.training.corpus import Corpus
from lpm_core.training.events import new_events
from lpm_core.training.people import UNKNOWN
from lpm_core.training.splits import bucket, data
from lpm_core.writer import cut_chunks
from lpm_integrations.bench.arms import make_arm
from lpm_integrations.bench.cases import TEMPORAL, probe_cases
from lpm_integrations.langchain import LPMMemory

AT = datetime(2026, 11, 27, 23, tzinfo=UTC)  # a Friday
PARTS = [
    "yesterday",
    "last",
    "Friday",
    "night",
    "two",
    "weeks",
    "ago",
    "(",
    ")",
    "this",
    "morning",
    "2026",
    "a few",
    ".",
    "the",
    "next",
    "from now",
    "today",
    "\n",
]


@pytest.mark.parametrize(
    ("said", "date"),
    [
        ("yesterday", "26 November 2026"),
        ("last night", "26 November 2026"),
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


@pytest.mark.parametrize(
    "said",
    [
        *("last week's news", "on Friday", "in May", "last summer", "last Friday the 13th", "next Tuesday, December 8th", "this Monday", "next Saturday week"),
        *("our last night in Rome", "my last year of college", "the last Friday of May", "in 2019 and the next year", "like there was no tomorrow"),
        *(
            "sixty-two years ago",
            "twenty one days from now",
            "1.5 years ago",
            "half a year ago",
            "two or three weeks ago",
            "2-3 weeks ago",
            "a year and a day ago",
        ),
        *("how many years ago", "a year ago today", "a week from tomorrow", "two days before yesterday", "I saw The Day After Tomorrow", "the song Yesterday"),
        *(
            "USA Today",
            "today@mail.com",
            "https://news.com/today/x",
            "date.today()",
            "this week-end",
            "yesterday (with Tom)",
            "laſt week",
            "thıs year",
            "999 years from then",
        ),
    ],
)
def test_what_may_mean_another_day_or_none_stays(said: str) -> None:
    assert resolve(said, AT) == said


def test_what_lies_beyond_the_calendar_stays() -> None:
    for at in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)):
        for said in ("999 years ago", "yesterday", "tomorrow", "next month", "last Friday"):
            assert resolve(said, at).startswith(said)


def test_a_day_is_that_of_the_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("TZ", "EST+5")
        time.tzset()
        assert resolve("today", datetime(2026, 11, 28, 1, tzinfo=UTC)) == "today (27 November 2026)"
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=14), st.datetimes(timezones=st.just(UTC)))
def test_resolving_once_more_changes_nothing(words: list[str], at: datetime) -> None:
    for between in (" ", ""):
        once = resolve(between.join(words), at)
        assert resolve(once, at) == once


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
                assert bucket(question.answer) == "test"


def test_events_and_their_frames_are_held_out() -> None:
    train, test = ({event.did for number in range(80) for event in new_events(split, 3, str, random.Random(number))} for split in ("train", "test"))
    assert not train & test
    asked = {split: " ".join(q.text for p in Corpus(split).people(2, 60, 1, questions=4, dates=3) for q in p.questions) for split in ("train", "test")}
    for frames in ("asked", "asked_before"):
        for frame in data("events.toml")[frames][-2:]:
            assert frame.partition("{")[0] not in asked["train"]


def test_dated_probes_are_of_the_temporal_category_and_arms_that_give_text_see_the_dates(lpm: LPM, tmp_path: Path) -> None:
    case = next(probe_cases(1, 0, 2, 6, dates=3))
    dated = [question for question in case.questions if question.category == TEMPORAL]
    assert dated
    for name in ("full", "rag@20", "lpm"):
        arm = make_arm(name, lpm, tmp_path / name, 8)
        arm.write(case)
        for question in dated if name != "lpm" else ():
            assert question.gold != UNKNOWN
            assert any(str(question.gold) in message["content"] for message in arm.messages(case, question)[0])
        arm.close()
    assert [turn.dated for turn in case.turns] == [turn.dated for turn in lpm.turns(case.user_id)]


def test_another_way_to_date_texts_is_another_identity(embedded: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpm_core.checkpoint.DATES", VERSION + 1)
    again = MemoryWeights(embedded.weights.config)
    again.load_state_dict(embedded.weights.state_dict())
    assert again.fingerprint != embedded.weights.fingerprint


def test_a_date_is_not_cut_in_two(lpm: LPM) -> None:
    for words in range(12, 30):
        text = f"{'so ' * words}I painted the long fence behind the house yesterday (7 May 2023) and the gate and the door and the old table too"
        for chunk in cut_chunks([("user", text)], lpm.backbone.chat, lpm.weights.config):
            pieces = [lpm.backbone.chat.decode(chunk.ids[first:last]) for first, last in chunk.spans]
            assert any("(7 May 2023)" in piece for piece in pieces), pieces


def test_other_models_read_the_dates_too(lpm: LPM) -> None:
    lpm.remember("ann", "I painted the fence yesterday.", at=datetime(2023, 5, 8, tzinfo=UTC))
    memory = LPMMemory("ann", engine=lpm, window=0, recall="text")
    assert "- I painted the fence yesterday (7 May 2023)." in memory.load_memory_variables({"input": "When did I paint the fence?"})["history"]
