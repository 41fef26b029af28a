"""Runs of the benchmark: every arm, evidence recall, interruption and resumption, failures, comparison and report."""

from __future__ import annotations

import csv
import json
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from rich.console import Console
from typer.testing import CliRunner

from lpm_core import LPM
from lpm_core.exceptions import DatasetError, InvalidInputError
from lpm_integrations.bench.arms import ARMS, arm_names, make_arm
from lpm_integrations.bench.cases import Case, HistoryTurn
from lpm_integrations.bench.cases import TestQuestion as Question
from lpm_integrations.bench.cli import app
from lpm_integrations.bench.datasets.locomo import SAMPLE
from lpm_integrations.bench.models import ChatAnswerer, Judge
from lpm_integrations.bench.report import page, read_result
from lpm_integrations.bench.runner import markdown, rows, run
from lpm_integrations.bench.significance import compare, mean_interval, sign_test

ALL = ("none", "shuffled", "full", "rag@1", "lpm", "hybrid@1")


class WordsEmbedding:
    """Texts with the same words are alike."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.01] * 64
        for word in re.findall(r"\w+", text.lower()):
            vector[zlib.crc32(word.encode()) % 64] += 1.0
        return vector


@pytest.fixture(autouse=True)
def _quick_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpm_integrations.chroma.retrieval.MiniLMEmbedding", WordsEmbedding)


def case(name: str) -> Case:
    turns = (
        HistoryTurn("s1", "user", f"{name} lives in Oslo", "t1"),
        HistoryTurn("s1", "assistant", "Nice", "t2"),
        HistoryTurn("s2", "user", "the cat is grey", "t3"),
    )
    questions = (
        Question(f"{name}/0", "who lives in Oslo", name, 4, evidence=("t1",)),
        Question(f"{name}/1", "the cat is what", "grey", 1, evidence=("t1", "t3")),
        Question(f"{name}/2", "what is the time", None, 5),
    )
    return Case(name, turns, questions)


CASES = [case("ann"), case("bo")]


def go(engine: LPM, arms: tuple[str, ...] = ("none", "lpm"), cases: list[Case] = CASES, score: Any = None, **options: Any) -> dict[str, Any]:
    def by_length(answer: str, question: Question) -> float:
        return float(len(answer) % 2)

    settings: dict[str, Any] = {"engine": engine, "config": {"seed": 0}, "console": Console(file=StringIO()), "max_new_tokens": 4, **options}
    return run("own", cases, arms, score or by_length, **settings)


def test_every_arm_runs_and_reports_what_it_retrieved(tiny: LPM) -> None:
    result = go(tiny, ALL)

    arms = result["arms"]
    assert tuple(arms) == ALL
    assert all(row["n"] == 6 and set(row["scores"]) == {"1", "4", "5"} for row in arms.values())
    assert {name for name, row in arms.items() if "retrieval" in row} == {"rag@1", "lpm", "hybrid@1"}
    assert arms["rag@1"]["retrieval"] == {"recall": 0.75, "n": 4, "retrieved": 1.0}  # all of one evidence, half of two
    assert arms["hybrid@1"]["retrieval"]["recall"] >= arms["rag@1"]["retrieval"]["recall"]
    assert arms["lpm"]["cost"]["soft_tokens"] == arms["hybrid@1"]["cost"]["soft_tokens"] == 4
    assert arms["hybrid@1"]["cost"]["prompt_tokens"] > arms["lpm"]["cost"]["prompt_tokens"]
    assert arms["lpm"]["cost"]["prompt_tokens"] == arms["none"]["cost"]["prompt_tokens"]
    assert "recall" in markdown(rows(result)).splitlines()[0]


def test_arms_share_one_history(tiny: LPM, tmp_path: Path) -> None:
    for name in ("lpm", "hybrid", "shuffled"):
        arm = make_arm(name, tiny, tmp_path, 4)
        arm.write(CASES[0])
        arm.close()

    assert len(tiny.turns("ann")) == 3


def test_names_of_arms() -> None:
    assert arm_names("rag@2, hybrid,rag@10,rag@2,lora@1e-3x9") == ["rag@2", "hybrid", "rag@10", "lora@1e-3x9"]
    for name in ("magic", "rag@0", "lpm@0", "full@3", "lpm_slots", "rag@", "rag@1.5", "lora@2", "lora@1e", "lora@1e-3x0", "rag@2x3", "RAG"):
        with pytest.raises(InvalidInputError, match=re.escape(name)):
            arm_names(name)
    with pytest.raises(InvalidInputError, match=ARMS[0]):
        arm_names(" , ")


def stopping_after(count: int) -> Any:
    def score(answer: str, question: Question) -> float:
        nonlocal count
        count -= 1
        if count < 0:
            raise KeyboardInterrupt
        return float(len(answer) % 2)

    return score


def test_an_interrupted_run_keeps_what_it_had_and_goes_on(tiny: LPM, tmp_path: Path) -> None:
    partial = tmp_path / "out.json.partial"
    with pytest.raises(KeyboardInterrupt):
        go(tiny, score=stopping_after(8), partial=partial)
    assert len(partial.read_text("utf-8").splitlines()) == 1 + 8
    with partial.open("a") as file:
        file.write('{"arm": "lpm", "id": "an')  # cut off

    resumed = go(tiny, score=stopping_after(12 - 8), partial=partial, resume=True)

    whole = go(tiny)
    assert {name: row["scores"] for name, row in resumed["arms"].items()} == {name: row["scores"] for name, row in whole["arms"].items()}


@pytest.fixture
def one_core() -> Iterator[None]:
    """One thread always gives the same bits; sums of two may differ from it in a likelihood's last."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_core")
def test_users_asked_side_by_side_get_the_same_answers(tiny: LPM, tmp_path: Path) -> None:
    cases = [replace(CASES[number % 2], user_id=f"user-{number}") for number in range(4)]
    cases = [replace(case, questions=tuple(replace(asked, id=f"{case.user_id}/{asked.id}") for asked in case.questions)) for case in cases]
    partial = tmp_path / "out.json.partial"

    alone, together = (go(tiny, ("none", "lpm", "rag@1", "shuffled"), cases, keep_answers=True, jobs=jobs) for jobs in (1, 3))
    with pytest.raises(KeyboardInterrupt):
        go(tiny, ("lpm",), cases, score=stopping_after(3), partial=partial, jobs=2)

    assert [row["answers"] for row in together["arms"].values()] == [row["answers"] for row in alone["arms"].values()]
    assert together["config"] == {**alone["config"], "jobs": 3}
    assert len(partial.read_text("utf-8").splitlines()) == 1 + 3
    with pytest.raises(InvalidInputError, match="jobs 0"):
        go(tiny, jobs=0)


def test_more_arms_can_be_added_to_a_run_but_no_other_configuration(tiny: LPM, tmp_path: Path) -> None:
    partial = tmp_path / "out.json.partial"
    go(tiny, ("none",), partial=partial)

    assert set(go(tiny, ("none", "full"), score=stopping_after(6), partial=partial, resume=True)["arms"]) == {"none", "full"}
    with pytest.raises(InvalidInputError, match="seed"):
        go(tiny, partial=partial, resume=True, config={"seed": 1})


def test_a_question_that_cannot_be_asked_is_a_recorded_failure(tiny: LPM) -> None:
    long = replace(CASES[0], questions=(*CASES[0].questions, Question("ann/long", "why " * 5000, "Oslo", 4)))

    row = go(tiny, ("lpm",), [long], score=lambda answer, question: 1.0)["arms"]["lpm"]

    assert [item["id"] for item in row["failures"]] == ["ann/long"]
    assert row["overall"] == 0.75
    assert row["cost"]["prompt_tokens"] < 256


class Chat:
    """A chat model from outside: answers with the last thing said before the question, and keeps what it was given."""

    name = "tests:chat"

    def __init__(self, fail_on: str = "") -> None:
        self.fail_on, self.given = fail_on, []

    def invoke(self, messages: list[dict[str, str]]) -> AIMessage:
        self.given.append(messages)
        if self.fail_on and self.fail_on in messages[-1]["content"]:
            raise RuntimeError("no credit left")
        usage = UsageMetadata(input_tokens=7, output_tokens=1, total_tokens=8)
        return AIMessage([{"type": "text", "text": f" {messages[-2]['content'] if len(messages) > 1 else 'who knows'} "}], usage_metadata=usage)


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Chat:
    model = Chat()
    monkeypatch.setitem(sys.modules, "chat_of_tests", SimpleNamespace(make=lambda: model))
    return model


def test_any_chat_model_answers_from_what_each_arm_gives_as_text(tiny: LPM, chat: Chat) -> None:
    arms = go(tiny, ALL, answerer=ChatAnswerer("chat_of_tests:make"), keep_answers=True)["arms"]

    asked = len(CASES[0].questions)
    given = {name: chat.given[2 * asked * index : 2 * asked * (index + 1)] for index, name in enumerate(ALL)}
    assert all(len(messages) == 1 for messages in given["none"])
    assert [message["content"] for message in given["full"][0]] == [*(turn.content for turn in CASES[0].turns), CASES[0].questions[0].text]
    assert all(len(messages) == 2 for messages in given["rag@1"])
    assert arms["rag@1"]["retrieval"]["recall"] > 0
    for messages, other in zip(given["shuffled"], [CASES[1]] * asked + [CASES[0]] * asked, strict=True):
        assert {message["content"] for message in messages[:-1]} <= {turn.content for turn in other.turns}
    for name, row in arms.items():
        assert row["cost"]["prompt_tokens"] == 7
        assert row["cost"]["soft_tokens"] == 0
        assert row["cost"]["kv_bytes"] is None
        assert row["gold_nll"] is None
        assert "failures" not in row, name
    assert arms["none"]["answers"][0]["answer"] == "who knows"


def test_an_answerer_or_a_judge_that_raises_is_a_recorded_failure(tiny: LPM, chat: Chat) -> None:
    chat.fail_on = "the cat"

    row = go(tiny, ("full",), answerer=ChatAnswerer("chat_of_tests:make"), judge=Judge(ChatAnswerer("chat_of_tests:make")))["arms"]["full"]

    assert [item["id"] for item in row["failures"]] == ["ann/0", "ann/1", "bo/0", "bo/1"]  # the judge says neither; the answerer raises
    assert "no credit left" in row["failures"][1]["error"]
    assert "j" not in row


def test_a_judge_gives_j_beside_the_score(tiny: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict:
        name = "tests:strict"

        def answer(self, prompt: str) -> str:
            return '{"label": "CORRECT"}' if "grey" in prompt else '{"label": "WRONG"}'

    result = go(tiny, ("none",), judge=Judge(Strict()))

    assert result["arms"]["none"]["j"] == {"overall": 0.5, "n": 4}
    assert result["config"]["judge"] == "tests:strict"
    assert "| J |" in markdown(rows(result))


def test_the_likeliest_option_is_chosen_and_too_long_questions_are_cut(tiny: LPM, tmp_path: Path) -> None:
    options = ("Oslo", "Bergen by the sea", "Rome")
    question = Question("q", "where", "b", 1, options=options)
    arm = make_arm("none", tiny, tmp_path, 4)
    chat = tiny.backbone.chat
    embeds, _ = tiny.prompt(None, "where")
    losses = [tiny.backbone.answer_loss(embeds, [*chat.content(text), *chat.markup("<|im_end|>")]) for text in options]

    outcome = arm.choose(CASES[0], question)

    assert outcome.answer == "abc"[losses.index(min(losses))]
    assert outcome.nll == pytest.approx(losses[1], abs=1e-4)
    for name in ("none", "full", "lpm"):
        long = make_arm(name, tiny, tmp_path, 4)
        long.write(CASES[0])
        cut = long.choose(CASES[0], replace(question, text="why " * 5000, options=("Oslo", "far away " * 400)))
        assert cut.answer in "ab"
        assert cut.prompt_tokens + cut.soft_tokens <= tiny.backbone.window // 2


@pytest.mark.parametrize(("wins", "losses", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (5, 5, 1.0), (9, 1, 22 / 1024)])
def test_the_sign_test_is_exact(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p)


def test_intervals_hold_the_mean_and_repeat() -> None:
    values = [0.0, 1.0] * 50

    low, high = mean_interval(values)

    assert 0.38 < low < 0.42
    assert 0.58 < high < 0.62
    assert (low, high) == mean_interval(values)
    assert mean_interval([0.3] * 9) == pytest.approx((0.3, 0.3))
    with pytest.raises(InvalidInputError):
        mean_interval([])


def test_two_arms_are_compared_on_the_questions_they_share() -> None:
    result = {
        "arms": {
            "a": {"scores": {"1": {"q1": 1.0, "q2": 1.0}, "4": {"q3": 0.5, "only": 1.0}}},
            "b": {"scores": {"1": {"q1": 0.0, "q2": 1.0}, "4": {"q3": 1.0}}},
            "old": {},
        }
    }

    found = compare(result, "a", "b")

    assert list(found) == ["overall", "1", "4"]
    row = found["overall"]
    assert (row["n"], row["wins"], row["losses"], row["p"]) == (3, 1, 1, 1.0)
    assert row["difference"] == pytest.approx(0.5 / 3)
    assert row["interval"][0] <= row["difference"] <= row["interval"][1]
    with pytest.raises(InvalidInputError, match="'c'"):
        compare(result, "a", "c")
    with pytest.raises(DatasetError, match="old"):
        compare(result, "a", "old")


def test_of_two_likelihoods_the_lower_nll_wins() -> None:
    result = {
        "arms": {"a": {"gold_nlls": {"4": {"q1": 1.0, "q2": 2.0, "q3": 2.0}, "5": {}}}, "b": {"gold_nlls": {"4": {"q1": 3.0, "q2": 2.5, "q3": 1.0}, "5": {}}}}
    }

    found = compare(result, "a", "b", measure="gold_nlls")

    assert list(found) == ["overall", "4"]
    assert (found["4"]["wins"], found["4"]["losses"]) == (2, 1)
    assert found["overall"]["difference"] == pytest.approx(-0.5)
    with pytest.raises(DatasetError, match="scores"):
        compare(result, "a", "b")


def test_the_page_shows_every_arm_and_needs_nothing_from_outside(tiny: LPM) -> None:
    odd = {"id": "q<1>", "error": "Bad & <b>"}
    result = go(tiny, ("none", "rag@1", "lpm"))
    result["arms"]["lpm"]["failures"] = [odd]

    html = page([result])

    assert html.count("<table>") == 4
    assert html.count("<svg") == 3
    assert all(f"<td>{arm}</td>" in html for arm in ("none", "rag@1", "lpm"))
    assert "<td>lpm - none</td>" in html
    assert "4 single-hop (n=2)" in html
    assert "q&lt;1&gt;" in html
    assert not re.search(r"<script|https?:|url\(|<link|@import", html)
    with pytest.raises(InvalidInputError):
        page([])


def test_examples_that_an_arm_won_and_lost_show_their_evidence(tiny: LPM) -> None:
    def score(answer: str, question: Question) -> float:
        return 0.5

    result = go(tiny, ("none", "rag@1", "lpm"), score=score, keep_answers=True)
    for row in result["arms"]["lpm"]["answers"]:
        row["score"], row["answer"] = (1.0, "A <b>") if row["id"] == "ann/1" else (0.0, "") if row["id"] == "bo/2" else (0.5, "B")

    html = page([result])

    cards = re.findall(r'<article class="example">.*?</article>', html)
    assert len(cards) == 4
    assert re.findall(r"<summary>(lpm .*?)</summary>", html) == [
        f"lpm {word} {arm}: 1 of 1 questions" for arm in ("none", "rag@1") for word in ("won against", "lost to")
    ]
    won = cards[2]
    assert all(f"<dd>{text}</dd>" in won for text in ("the cat is what", "grey", "A &lt;b&gt; <small>(score 1)</small>"))
    assert "<dt>rag@1 was shown</dt><dd><ul><li>the cat is grey</li></ul></dd>" in won
    assert "<dt>answer told in</dt><dd><ul><li>ann lives in Oslo</li><li>the cat is grey</li></ul></dd>" in won
    assert "what is the time" in cards[3]
    assert not re.search(r"<script|https?:|url\(|<link|@import", html)


def test_no_more_than_ten_examples_are_drawn_and_only_from_documents_that_hold_answers(tiny: LPM) -> None:
    def second_arm(answer: str, question: Question) -> float:
        asked.append(answer)
        return float(len(asked) > 14)

    asked: list[str] = []
    many = replace(CASES[0], questions=tuple(replace(CASES[0].questions[0], id=str(number)) for number in range(14)))
    kept = go(tiny, ("none", "lpm"), [many], score=second_arm, keep_answers=True)

    assert "lpm won against none: 10 of 14 questions" in page([kept])
    assert page([kept]) == page([kept])
    assert "--keep-answers" in page([{name: value for name, value in kept.items() if name != "questions"}])


def test_kept_answers_survive_an_interruption_with_what_they_were_shown(tiny: LPM, tmp_path: Path) -> None:
    partial = tmp_path / "out.json.partial"
    with pytest.raises(KeyboardInterrupt):
        go(tiny, ("rag@1",), score=stopping_after(3), partial=partial)

    resumed = go(tiny, ("rag@1",), partial=partial, resume=True, keep_answers=True)

    whole = go(tiny, ("rag@1",), keep_answers=True)
    assert resumed["questions"] == whole["questions"]
    assert whole["questions"]["ann/1"] == {
        "question": "the cat is what", "gold": "grey", "evidence": ["t1", "t3"], "turns": {"t1": "ann lives in Oslo", "t3": "the cat is grey"},
    }  # fmt: skip
    assert [row["turns"] for row in resumed["arms"]["rag@1"]["answers"]] == [row["turns"] for row in whole["arms"]["rag@1"]["answers"]]
    assert "questions" not in go(tiny, ("rag@1",))


def test_documents_of_the_first_version_are_still_shown() -> None:
    root = Path(__file__).resolve().parents[1] / "results"

    html = page([read_result(root / f"{name}.json") for name in ("probes", "locomo")])

    assert html.count("<h2>") == 2


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"benchmark": "own", "arms": {}}', '{"benchmark": "mem0"}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)

    with pytest.raises(DatasetError, match=r"result\.json"):
        read_result(path)
    with pytest.raises(DatasetError, match=r"nowhere\.json"):
        read_result(tmp_path / "nowhere.json")


def lpm_bench(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_commands_from_data_to_report(tiny_folder: Path, tmp_path: Path) -> None:
    own, questions, contexts = tmp_path / "own.jsonl", tmp_path / "questions.csv", tmp_path / "shared_contexts.jsonl"
    person = {"user_id": "ann", "history": [{"role": "user", "content": "I live in Oslo"}], "questions": [{"question": "Where?", "answer": "Oslo"}] * 3}
    own.write_text(json.dumps(person))
    rows = [
        {"question_id": f"q{number}", "question_type": "suggest_new_ideas", "user_question_or_message": "What next?", "correct_answer": "(b)",
         "all_options": '["(a) Rest.", "(b) Try a new song."]', "shared_context_id": context, "end_index_in_shared_context": "2"}
        for number, context in enumerate(("c1", "gone"))
    ]  # fmt: skip
    with questions.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    contexts.write_text(json.dumps({"c1": [{"role": "system", "content": "Persona"}, {"role": "user", "content": "Hi"}]}))

    lpm_bench("own", "--data", own, "--arms", "none,lpm", "--model", tiny_folder, "--json", tmp_path / "own.json")
    said = lpm_bench("personamem", "--data", tmp_path, "--arms", "lpm", "--model", tiny_folder, "--json", tmp_path / "persona.json")
    lpm_bench("mem0", "--data", SAMPLE, "--output", tmp_path / "mem0", "--conversations", "1", "--model", tiny_folder)
    lpm_bench("report", tmp_path / "own.json", tmp_path / "persona.json", tmp_path / "mem0/summary.json", "--html", tmp_path / "page.html")

    assert not list(tmp_path.glob("*.partial"))
    assert json.loads(lpm_bench("compare", tmp_path / "own.json", "--arms", "lpm,none", "--json"))["overall"]["n"] == 3
    assert "sign p" in lpm_bench("compare", tmp_path / "own.json", "--arms", "lpm,none")
    with pytest.raises(InvalidInputError, match="lpm bench report"):
        lpm_bench("table", tmp_path / "mem0/summary.json")
    assert "NLL of gold answers" in lpm_bench("compare", tmp_path / "own.json", "--arms", "lpm,none", "--nll")
    persona = json.loads((tmp_path / "persona.json").read_text("utf-8"))
    assert set(persona["arms"]) == {"none", "lpm"}
    assert (persona["config"]["skipped_without_context"], persona["config"]["longest_option"]) == (1, 1.0)
    assert "longest option" in said
    scores = json.loads((tmp_path / "mem0/scores.json").read_text("utf-8"))
    assert list(scores) == ["0"]
    assert "Scores by the Mem0 protocol" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize("arms", ["lpm", "lpm,lpm", "a,b,c", "lpm,nothing"])
def test_compare_wants_two_arms_that_are_there(tmp_path: Path, arms: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"benchmark": "own", "arms": {"lpm": {"scores": {"4": {"q": 1.0}}}}}))

    with pytest.raises((InvalidInputError, DatasetError)):
        CliRunner().invoke(app, ["compare", str(path), "--arms", arms], catch_exceptions=False)


def test_resume_needs_a_place(tiny_folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="--json"):
        CliRunner().invoke(app, ["locomo", "--data", str(SAMPLE), "--resume", "--model", str(tiny_folder)], catch_exceptions=False)
