"""The metrics give what the protocols' own code gives: hand-worked cases, and scores that others published."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from lpm_core.exceptions import InvalidInputError, MissingDependencyError
from lpm_integrations.bench.datasets.locomo import load_locomo
from lpm_integrations.bench.metrics import locomo_f1, mem0_bleu1, mem0_f1, retrieval_recall

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="module")
def golden() -> list[dict[str, Any]]:
    """One system's answers, with the Mem0-protocol scores published for each."""
    path = SHARED / "data/locomo/golden/memobase_eval_0710_3000.json"
    if not path.exists():
        pytest.skip("the published answers are not here (CC BY-NC, not part of the project)")
    return [row for rows in json.loads(path.read_text("utf-8")).values() for row in rows]


@pytest.mark.parametrize(
    ("prediction", "gold", "category", "score"),
    [
        # 2 and 4: the F1 of stemmed words, counted
        ("7 May 2023", "May 7, 2023", 2, 1.0),
        ("May 2023", "7 May 2023", 2, 0.8),  # precision 1, recall 2/3
        ("in 2022", 2022, 2, 0.667),  # precision 1/2, recall 1
        ("She adopted a dog in Paris", "adopting dogs, Paris", 4, 0.75),  # she adopt dog in pari / adopt dog pari
        ("go go go", "go", 4, 0.5),  # precision 1/3: repeats count
        ("salt and the pepper", "Salt, pepper!", 4, 1.0),  # articles, "and", case and punctuation do not count
        ("well-being", "wellbeing", 4, 1.0),  # punctuation is deleted, not replaced by a space
        ("Oslo", "Bergen", 4, 0.0),
        # 3: the gold counts up to its first ";"
        ("likely no", "Likely no; because she is allergic", 3, 1.0),
        ("likely no", "Likely no; because she is allergic", 4, 0.5),
        # 1: each part of the gold against the best part of the prediction
        ("plates, a bowl", "a bowl, twelve plates", 1, 0.833),  # (1 + 2/3) / 2
        ("plates, a bowl", "a bowl, twelve plates", 4, 0.8),
        ("a bowl", "a bowl, twelve plates", 1, 0.5),
        ("a bowl, a vase, a hat", "bowl", 1, 1.0),
        # 5: only a refusal is right, whatever the gold
        ("No information available.", "", 5, 1.0),
        ("That is NOT MENTIONED in the conversation", "a greyhound", 5, 1.0),
        ("a greyhound", "a greyhound", 5, 0.0),
        ("", "", 5, 0.0),
    ],
)
def test_locomo_f1_of_hand_worked_cases(prediction: str, gold: str | int, category: int, score: float) -> None:
    assert locomo_f1(prediction, gold, category) == score


@pytest.mark.parametrize("category", [1, 2, 3, 4])
@pytest.mark.parametrize(("prediction", "gold"), [("", "Oslo"), ("Oslo", ""), ("", ""), ("the", "an"), ("?!", "Oslo")])
def test_locomo_f1_is_zero_where_a_side_has_no_words(prediction: str, gold: str, category: int) -> None:
    assert locomo_f1(prediction, gold, category) == 0.0


@pytest.mark.parametrize("category", [0, 6, -1])
def test_an_unknown_category_is_refused_by_name(category: int) -> None:
    with pytest.raises(InvalidInputError, match=f"category {category}"):
        locomo_f1("Oslo", "Oslo", category)


def test_always_answering_not_mentioned_is_the_known_baseline() -> None:
    path = SHARED / "data/locomo/locomo10.json"
    if not path.exists():
        pytest.skip("locomo10.json is not here (CC BY-NC, not part of the project)")
    questions = [question for conversation in load_locomo(path) for question in conversation.questions]

    scores = [locomo_f1("not mentioned", question.answer, question.category) for question in questions]

    assert sum(question.category == 5 for question in questions) / len(questions) == pytest.approx(0.2246, abs=5e-5)
    assert fmean(scores) == pytest.approx(0.2260, abs=5e-5)  # and a word in common with 13 other answers


def test_mem0_f1_counts_sets_of_unstemmed_words() -> None:
    assert mem0_f1("go go go", "Go!") == 1.0
    assert mem0_f1("dogs", "dog") == 0.0
    assert mem0_f1("the red bowl", "a red bowl") == pytest.approx(2 / 3)  # articles count
    assert mem0_f1("2022", 2022) == 1.0
    assert mem0_f1("St.Gallen", "Gallen") == pytest.approx(2 / 3)  # a stop separates words


def test_mem0_bleu1_is_precision_times_the_brevity_penalty() -> None:
    assert mem0_bleu1("Paris", "paris") == pytest.approx(1.0)
    assert mem0_bleu1("a b c", "a b d e") == pytest.approx(2 / 3 * math.exp(1 - 4 / 3))
    assert mem0_bleu1("a b c d", "a b") == pytest.approx(1 / 2)
    assert mem0_bleu1("it is 30", 30) == pytest.approx(1 / 3)


def test_mem0_bleu1_splits_sentences_as_punkt_does() -> None:
    # a stop within the text is a word of its own after a sentence, and part of an abbreviation
    assert mem0_bleu1("he left. she stayed", "left .") == pytest.approx(2 / 5)
    assert mem0_bleu1("dr. dre sang", "dr. dre") == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [mem0_f1, mem0_bleu1])
@pytest.mark.parametrize(("prediction", "gold"), [("", "Oslo"), ("Oslo", ""), ("", ""), ("  ", "Oslo")])
def test_mem0_metrics_are_zero_where_a_side_is_empty(metric: Callable[[str, str], float], prediction: str, gold: str) -> None:
    assert metric(prediction, gold) == 0.0


def test_mem0_metrics_reach_the_published_figures(golden: list[dict[str, Any]]) -> None:
    f1 = [mem0_f1(row["response"], row["answer"]) for row in golden]
    bleu = [mem0_bleu1(row["response"], row["answer"]) for row in golden]

    assert len(golden) == 1540
    assert 100 * fmean(f1) == pytest.approx(51.45, abs=0.02)
    assert 100 * fmean(bleu) == pytest.approx(39.79, abs=0.02)
    assert f1 == pytest.approx([row["f1_score"] for row in golden])
    assert sum(abs(ours - row["bleu_score"]) > 1e-9 for ours, row in zip(bleu, golden, strict=True)) <= 5


def test_a_missing_nltk_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.translate.bleu_score", None)

    with pytest.raises(MissingDependencyError, match=r"nltk.* is not installed: pip install .*\[bench\]"):
        mem0_bleu1("Oslo", "Oslo")


def test_retrieval_recall_is_the_share_of_the_evidence_found() -> None:
    assert retrieval_recall(["D1:1", "D2:4", "D9:9"], ["D1:1", "D2:4"]) == 1.0
    assert retrieval_recall(["D1:1"], ["D1:1", "D2:4"]) == 0.5
    assert retrieval_recall([], ["D1:1"]) == 0.0
    assert retrieval_recall(["D1:11"], ["D1:1"]) == 0.0  # whole ids


def test_retrieval_recall_of_a_question_without_evidence_is_undefined() -> None:
    assert retrieval_recall(["D1:1"], []) is None
