"""PersonaMem, LongMemEval and own histories are read as they are, and refused by name where they are something else."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lpm_core.exceptions import DatasetError
from lpm_integrations.bench.cases import personamem_cases
from lpm_integrations.bench.datasets.longmemeval import ABSTENTION, load_longmemeval
from lpm_integrations.bench.datasets.own import HANDWRITTEN, load_own
from lpm_integrations.bench.datasets.personamem import PersonaMem, load_personamem, longest_option, parse_choice

REAL = Path(__file__).resolve().parents[2] / "shared/data/personamem"
ROW = {
    "question_id": "q1", "question_type": "suggest_new_ideas", "user_question_or_message": "What next?", "correct_answer": "(b)",
    "all_options": '["(a) Rest.", "(b) Try a new song."]', "shared_context_id": "c1", "end_index_in_shared_context": "2",
}  # fmt: skip
CONTEXT = {"c1": [{"role": "system", "content": "Persona: Ann"}, {"role": "user", "content": "User: Hi"}, {"role": "assistant", "content": "Assistant: Hello"}]}


def write(folder: Path, rows: list[dict[str, str]], contexts: Any = CONTEXT) -> tuple[Path, Path]:
    questions, shared = folder / "questions.csv", folder / "contexts.jsonl"
    with questions.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shared.write_text(contexts if isinstance(contexts, str) else json.dumps(contexts) + "\n\n")
    return questions, shared


@pytest.fixture(scope="module")
def real() -> PersonaMem:
    if not REAL.exists():
        pytest.skip("PersonaMem's files are not here")
    return load_personamem(REAL / "questions_32k.csv", REAL / "shared_contexts_32k.partial_2of37.jsonl")


def test_the_real_files_are_read_and_questions_without_their_context_are_counted(real: PersonaMem) -> None:
    assert len(real.all_questions) == 589
    assert (len(real.questions), real.skipped, len(real.contexts)) == (17, 572, 2)
    assert Counter(item.type for item in real.all_questions).most_common(2) == [("track_full_preference_evolution", 139), ("recall_user_shared_facts", 129)]
    assert {len(item.options) for item in real.all_questions} == {4}
    assert not any(option.startswith("(") and option[2] == ")" for item in real.all_questions for option in item.options)
    assert [max(turn.session for turn in turns) for turns in real.contexts.values()] == [5, 5]


def test_the_longest_option_scores_what_was_measured(real: PersonaMem) -> None:
    right = sum(longest_option(item.options) == item.gold for item in real.all_questions)

    assert round(100 * right / 589, 1) == 51.6


def test_cases_see_their_context_up_to_its_index(real: PersonaMem) -> None:
    cases = list(personamem_cases(real, generate=False))

    assert sum(len(case.questions) for case in cases) == 17
    assert sorted(len(case.turns) for case in cases) == [159, 168, 169, 171, 182, 182]
    assert all(question.options and question.gold in "abcd" for case in cases for question in case.questions)
    assert "<final_answer>" not in cases[0].questions[0].text
    assert "<final_answer>" in next(personamem_cases(real, generate=True)).questions[0].text


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("<final_answer> (b)", True),
        ("I think (a) is off. <final_answer>(b)", True),
        ("<final_answer>(a)<final_answer>(b)", True),
        ("<final_answer> b", True),
        ("(b)", True),
        ("<final_answer>(a), (b)", False),
        ("<final_answer>(c)", False),
        ("(b) it is <final_answer>", True),
        ("either (a) or (b)", False),
        ("", False),
    ],
)
def test_choices_are_parsed_as_the_protocol_does(response: str, right: bool) -> None:
    assert parse_choice(response, "b") is right


def test_options_may_be_a_python_literal(tmp_path: Path) -> None:
    data = load_personamem(*write(tmp_path, [{**ROW, "all_options": """['(a) It\\'s late.', "(b) Don't."]"""}]))

    assert data.questions[0].options == ("It's late.", "Don't.")
    assert data.questions[0].prompt.endswith("(a) It's late.\n(b) Don't.")


@pytest.mark.parametrize(
    ("changes", "contexts", "named"),
    [
        ({"all_options": "none"}, CONTEXT, "row 2.*all_options"),
        ({"correct_answer": "(d)"}, CONTEXT, "correct_answer"),
        ({"question_type": "odd"}, CONTEXT, "question_type"),
        ({"end_index_in_shared_context": "x"}, CONTEXT, "end_index"),
        ({"end_index_in_shared_context": "9"}, CONTEXT, "q1"),
        ({}, "{", "line 1"),
        ({}, {"c1": [{"role": "user"}]}, "line 1"),
        ({}, {"c1": [{"role": "robot", "content": "Hi"}]}, "robot"),
    ],
)
def test_another_shape_of_personamem_is_refused(tmp_path: Path, changes: dict[str, str], contexts: Any, named: str) -> None:
    with pytest.raises(DatasetError, match=named):
        load_personamem(*write(tmp_path, [{**ROW, **changes}], contexts))


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    questions, contexts = write(tmp_path, [{"question_id": "q1"}])
    with pytest.raises(DatasetError, match="question_type"):
        load_personamem(questions, contexts)
    with pytest.raises(DatasetError, match=r"nowhere\.csv"):
        load_personamem(tmp_path / "nowhere.csv", contexts)
    questions, _ = write(tmp_path, [ROW])
    with pytest.raises(DatasetError, match=r"nowhere\.jsonl"):
        load_personamem(questions, tmp_path / "nowhere.jsonl")


LONG = {
    "question_id": "e47", "question_type": "multi-session", "question": "How many cats?", "answer": 2, "question_date": "2023/05/30 (Tue) 23:40",
    "haystack_session_ids": ["a", "b"], "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 03:00"], "answer_session_ids": ["b"],
    "haystack_sessions": [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}], [{"role": "user", "content": "My 2 cats", "has_answer": True}]],
}  # fmt: skip


def test_longmemeval_gives_a_case_per_question(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text(json.dumps([LONG, {**LONG, "question_id": "e48_abs"}]))

    first, second = load_longmemeval(path)

    assert [(turn.content, turn.key) for turn in first.turns] == [("Hi", "0/0"), ("My 2 cats", "1/0")]
    assert first.turns[1].at is not None
    assert first.turns[1].at.day == 21
    [question] = first.questions
    assert (question.gold, question.category, question.evidence) == ("2", 4, ("1/0",))
    assert (second.questions[0].gold, second.questions[0].category) == (None, ABSTENTION)


@pytest.mark.parametrize(
    ("content", "named"),
    [("{", "the whole"), ([{**LONG, "question_type": "odd"}], "odd"), ([{**LONG, "haystack_dates": ["x"]}], "e47"),
     ([{**LONG, "haystack_dates": ["x", "y"]}], "'x'"), ([{"question_id": "e47"}], r"0\.question_type")],
)  # fmt: skip
def test_another_shape_of_longmemeval_is_refused(tmp_path: Path, content: Any, named: str) -> None:
    path = tmp_path / "long.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=named):
        load_longmemeval(path)
    with pytest.raises(DatasetError, match="nowhere"):
        load_longmemeval(tmp_path / "nowhere.json")


OWN: dict[str, Any] = {
    "user_id": "ann",
    "history": [{"role": "user", "content": "I moved to Oslo.", "at": "2024-05-17T09:30:00"}, {"role": "assistant", "content": "Nice.", "id": "t1"}],
    "questions": [{"question": "Where do I live?", "answer": "Oslo", "evidence": ["0", "t1"]}, {"question": "What is my cat called?"}],
}


def test_the_people_written_by_hand_say_what_they_are_asked() -> None:
    cases = load_own(HANDWRITTEN)

    assert len(cases) >= 15
    assert sum(len(case.questions) for case in cases) >= 120
    for case in cases:
        said = {turn.key: turn.content.casefold() for turn in case.turns}
        assert [question.gold is None for question in case.questions].count(True) == 2
        for question in case.questions:
            assert (question.gold is None) is (question.category == 5)
            if question.gold is not None and question.category != 2:  # dates may have to be worked out
                assert any(question.gold.casefold() in said[key] for key in question.evidence), question


def test_an_own_history_needs_little(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(OWN) + "\n\n")

    [case] = load_own(path)

    assert [(turn.session_id, turn.key) for turn in case.turns] == [("default", "0"), ("default", "t1")]
    assert [(item.id, item.gold, item.category, item.evidence) for item in case.questions] == [("ann/0", "Oslo", 4, ("0", "t1")), ("ann/1", None, 5, ())]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 1"),
        (json.dumps({**OWN, "user_id": " "}), "user_id"),
        (json.dumps({**OWN, "history": [{"role": "robot", "content": "Hi"}]}), r"history\.0\.role"),
        (json.dumps({**OWN, "questions": [{"question": "Where?", "evidence": ["t9"]}]}), "t9"),
        (json.dumps({**OWN, "questions": [{"question": "Where?", "anwser": "x"}]}), "anwser"),
        (json.dumps(OWN) + "\n" + json.dumps(OWN), "ann"),
    ],
)
def test_another_shape_of_an_own_history_is_refused(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(line)
    with pytest.raises(DatasetError, match=named):
        load_own(path)
