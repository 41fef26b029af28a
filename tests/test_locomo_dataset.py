"""LoCoMo files are read as they are, repaired where that is clear, and refused by name where they are not LoCoMo."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lpm_core.exceptions import DatasetError
from lpm_integrations.bench.cases import locomo_case
from lpm_integrations.bench.datasets.locomo import CATEGORIES, SAMPLE, Conversation, DialogTurn, load_audit, load_locomo

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="module")
def locomo() -> list[Conversation]:
    path = SHARED / "data/locomo/locomo10.json"
    if not path.exists():
        pytest.skip("locomo10.json is not here (CC BY-NC, not part of the project)")
    return load_locomo(path)


def turn(dia_id: str, text: str = "Hello.", **more: str) -> dict[str, Any]:
    return {"speaker": "Ann", "dia_id": dia_id, "text": text, **more}


def record(evidence: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    conversation = {
        "speaker_a": "Ann",
        "speaker_b": "Bo",
        "session_10": [turn("D10:1")],
        "session_10_date_time": "12:09 am on 13 September, 2023",
        "session_2": [turn("D2:1"), turn("D2:2")],
        "session_2_date_time": "1:56 pm on 8 May, 2023",
        "session_11_date_time": "1:56 pm on 9 May, 2023",  # a date without a session, as in the real file
    }
    question = {"question": "Who?", "answer": 7, "category": 1, "evidence": evidence or []}
    return {"sample_id": "conv-1", "conversation": conversation, "qa": [question], **changes}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def _write(content: Any) -> Path:
        path = tmp_path / "file.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return _write


def test_the_real_file_is_read_whole(locomo: list[Conversation]) -> None:
    questions = [question for conversation in locomo for question in conversation.questions]

    assert len(locomo) == 10
    assert sum(len(conversation.sessions) for conversation in locomo) == 272
    assert sum(len(session.turns) for conversation in locomo for session in conversation.sessions) == 5882
    assert Counter(question.category for question in questions) == {1: 282, 2: 321, 3: 96, 4: 841, 5: 446}
    assert all(question.answer for question in questions if question.category != 5)
    assert sum(not question.evidence for question in questions if question.category == 3) == 4


def test_the_real_file_is_read_in_order_with_its_own_names(locomo: list[Conversation]) -> None:
    first = locomo[0]

    assert (first.id, first.speaker_a, first.speaker_b) == ("conv-26", "Caroline", "Melanie")
    assert [session.id for session in first.sessions] == [f"session_{number}" for number in range(1, 20)]
    assert first.sessions[0].at == datetime(2023, 5, 8, 13, 56)
    assert first.questions[1].id == "locomo_0_qa1"
    assert first.questions[1].answer == "2022"  # an int in the file
    assert all(earlier.at < later.at for earlier, later in zip(first.sessions, first.sessions[1:], strict=False))


def test_the_malformed_evidence_of_the_real_file_is_repaired_or_counted(locomo: list[Conversation]) -> None:
    questions = {question.id: question for conversation in locomo for question in conversation.questions}

    assert questions["locomo_0_qa37"].evidence == ("D8:6", "D9:17")  # "D8:6; D9:17"
    assert "D11:26" in questions["locomo_4_qa18"].evidence  # "D:11:26"
    assert "D30:5" in questions["locomo_9_qa69"].evidence  # "D30:05"
    assert [conversation.dropped_evidence for conversation in locomo] == [0, 0, 0, 2, 0, 0, 1, 0, 0, 0]  # "D", and two turns that do not exist
    for conversation in locomo:
        known = {turn.dia_id for session in conversation.sessions for turn in session.turns}
        assert all(known.issuperset(question.evidence) for question in conversation.questions)


def test_a_turn_gives_its_text_and_its_photo_but_never_the_query(locomo: list[Conversation]) -> None:
    raw = json.loads((SHARED / "data/locomo/locomo10.json").read_text("utf-8"))
    turns = {turn.dia_id: turn for session in locomo[0].sessions for turn in session.turns}
    asked = [item for number in range(1, 20) for item in raw[0]["conversation"][f"session_{number}"] if "query" in item]

    assert asked
    for item in asked:
        assert turns[item["dia_id"]].content == f"{item['text']} [shares a photo: {item['blip_caption']}]"


def test_content_without_a_photo_is_the_text() -> None:
    assert DialogTurn("D1:1", "Ann", "Hello.", None).content == "Hello."
    assert DialogTurn("D1:1", "Ann", "", "a cat").content == "[shares a photo: a cat]"


def test_sessions_are_ordered_by_number_and_dates_without_a_session_are_passed_over(write: Callable[[Any], Path]) -> None:
    [conversation] = load_locomo(write([record()]))

    assert [session.id for session in conversation.sessions] == ["session_2", "session_10"]
    assert conversation.sessions[1].at == datetime(2023, 9, 13, 0, 9)


@pytest.mark.parametrize(
    ("evidence", "kept", "dropped"),
    [
        (["D2:1", "D10:1"], ("D2:1", "D10:1"), 0),
        (["D2:1; D10:1"], ("D2:1", "D10:1"), 0),
        (["D2:1 D2:2 D10:1"], ("D2:1", "D2:2", "D10:1"), 0),
        (["D:10:1"], ("D10:1",), 0),
        (["D10:01"], ("D10:1",), 0),
        (["D"], (), 1),
        (["D2:3", "D2:2"], ("D2:2",), 1),  # no such turn
        (["D2:1; D3:1", ""], ("D2:1",), 2),
        ([], (), 0),
    ],
)
def test_evidence_names_turns_that_exist(write: Callable[[Any], Path], evidence: list[str], kept: tuple[str, ...], dropped: int) -> None:
    [conversation] = load_locomo(write([record(evidence)]))

    assert conversation.questions[0].evidence == kept
    assert conversation.dropped_evidence == dropped


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.json.*snap-research/locomo"):
        load_locomo(tmp_path / "nowhere.json")
    with pytest.raises(DatasetError, match="cannot read"):
        load_locomo(tmp_path)  # a folder


@pytest.mark.parametrize("content", ["", "{", "not json at all", "[1, 2"])
def test_what_is_not_json_is_refused(write: Callable[[Any], Path], content: str) -> None:
    path = write(content)
    with pytest.raises(DatasetError, match="is not JSON") as raised:
        load_locomo(path)
    assert str(path) in str(raised.value)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(DatasetError, match="is not"):
        load_locomo(path)


QUESTION = {"question": "Who?", "answer": "Bo", "category": 4, "evidence": []}
SESSIONS = record()["conversation"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"sample_id": "conv-1"}, "the whole"),
        ([7], r" 0: "),
        ([{"sample_id": "conv-1", "qa": []}], r"0\.conversation"),
        ([record(qa="none")], r"0\.qa"),
        ([record(), record(qa=[QUESTION, {**QUESTION, "category": 6}])], r"1\.qa\.1\.category"),
        ([record(qa=[{**QUESTION, "answer": None}])], r"0\.qa\.0\.answer"),
        ([record(qa=[{**QUESTION, "evidence": "D2:1"}])], r"0\.qa\.0\.evidence"),
        ([record(conversation={**SESSIONS, "speaker_b": None})], r"0\.conversation\.speaker_b"),
        ([record(conversation={**SESSIONS, "session_2": [turn("D2:1"), {"speaker": "Bo"}]})], r"0\.conversation\.session_2\.1\.dia_id"),
        ([record(conversation={**SESSIONS, "session_2_date_time": "yesterday"})], r"0\.conversation\.session_2_date_time.*yesterday"),
        ([record(conversation={**SESSIONS, "session_3": []})], r"0\.conversation\.session_3_date_time"),
    ],
)
def test_another_shape_is_refused_with_the_place_that_differs(write: Callable[[Any], Path], content: Any, place: str) -> None:
    path = write(content)
    with pytest.raises(DatasetError, match=place) as raised:
        load_locomo(path)
    assert str(path) in str(raised.value)


def test_an_adversarial_question_may_lack_an_answer(write: Callable[[Any], Path]) -> None:
    item = {"question": "Whose dog?", "category": 5, "evidence": ["D2:1"], "adversarial_answer": "Bo's"}

    [conversation] = load_locomo(write([record(qa=[item])]))

    assert conversation.questions[0].answer == ""
    assert conversation.questions[0].adversarial_answer == "Bo's"


def test_the_sample_is_package_data_and_a_small_locomo() -> None:
    assert resources.files("lpm_integrations.bench.datasets").joinpath("sample_locomo.json").is_file()

    sample = load_locomo(SAMPLE)

    assert len(sample) == 2
    for conversation in sample:
        assert len(conversation.sessions) == 4
        assert all(6 <= len(session.turns) <= 10 for session in conversation.sessions)
        assert {turn.speaker for session in conversation.sessions for turn in session.turns} == {conversation.speaker_a, conversation.speaker_b}
        assert len(conversation.questions) == 12
        assert {question.category for question in conversation.questions} == set(CATEGORIES)
        assert all(question.evidence for question in conversation.questions)
        assert conversation.dropped_evidence == 0


def test_the_category_names_are_the_official_ones() -> None:
    assert dict(CATEGORIES) == {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}


def test_the_audit_flags_99_of_the_answers_in_categories_1_to_4(locomo: list[Conversation]) -> None:
    path = SHARED / "data/locomo/locomo_audit_errors.json"
    if not path.exists():
        pytest.skip("locomo_audit_errors.json is not here")
    flagged = load_audit(path)
    cases = [locomo_case(conversation, flagged) for conversation in locomo]
    asked = [question for case in cases for question in case.questions]

    assert sum(question.category != 5 and question.id in flagged for question in asked) == 99
    assert {question.id for question in asked if not question.tags} == flagged & {question.id for question in asked}


@pytest.mark.parametrize("content", ["[", {"question_id": "a"}, [{"question_id": 1, "error_type": "x"}]])
def test_what_is_no_audit_is_refused(write: Callable[[Any], Path], content: Any) -> None:
    with pytest.raises(DatasetError, match="not an audit of LoCoMo"):
        load_audit(write(content))


def test_an_audit_leaves_wrong_citations_in(write: Callable[[Any], Path]) -> None:
    found = [{"question_id": "a", "error_type": "HALLUCINATION"}, {"question_id": "b", "error_type": "WRONG_CITATION"}]

    assert load_audit(write(found)) == {"a"}
    with pytest.raises(DatasetError, match="cannot read"):
        load_audit("nowhere.json")
