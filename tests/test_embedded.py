"""The shipped weights do what the README says, on people nobody trained on."""

from __future__ import annotations

from pathlib import Path

from lpm_core import LPM
from lpm_core.engine import embedded_folder
from lpm_core.training.corpus import UNKNOWN, Corpus
from lpm_core.training.memory import memory_recall


def test_the_embedded_default_is_small_and_has_a_card() -> None:
    folder = embedded_folder()

    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 40 * 2**20
    assert "Limits" in (folder / "MODEL_CARD.md").read_text("utf-8")
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_memory_answers_where_no_memory_and_other_memory_do_not(lpm: LPM) -> None:
    people = list(Corpus("test").people(77, 12, 6, questions=6))
    right = {"own": 0, "none": 0, "other": 0}
    asked = 0
    for number, person in enumerate(people):
        lpm.remember(f"p{number}", [{"role": role, "content": text} for role, text in person.turns])
    for number, person in enumerate(people):
        for question in person.questions:
            if question.answer == UNKNOWN:
                continue
            asked += 1
            for kind, user in (("own", f"p{number}"), ("none", "nobody"), ("other", f"p{number - 1 if number else len(people) - 1}")):
                right[kind] += lpm.ask(user, question.text, max_new_tokens=16).text.lower() == question.answer.lower()

    assert right["own"] > 3 * max(1, right["none"], right["other"]), (right, asked)


def test_training_figures_can_be_measured_again(lpm: LPM) -> None:
    figures = memory_recall(list(Corpus("test").people(5, 8, 4)), lpm.weights, lpm.backbone)

    assert set(figures) <= {"known", "open", "untold", "attention"}
    assert all(0 <= value <= 1 for value in figures.values())


def test_evidence_names_the_turn_that_was_read(lpm: LPM, tmp_path: Path) -> None:
    lpm.remember("ann", "I live in Lisbon.")
    lpm.remember("ann", "My dog is called Rex.", session_id="s2")

    answer = lpm.ask("ann", "What is my dog's name?")

    assert answer.text == "Rex"
    assert answer.evidence[0].turn.content == "My dog is called Rex."
