"""The Mem0 protocol to the letter: its add calls, its rows, its scores; and a run that can be broken off."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lpm_core.exceptions import DatasetError, InvalidInputError
from lpm_integrations.bench.datasets.locomo import SAMPLE, Conversation, load_locomo
from lpm_integrations.bench.mem0_protocol import ANSWER_PROMPT, add_calls, score_row
from lpm_integrations.bench.mem0_run import run_mem0
from lpm_integrations.bench.models import ChatAnswerer, Judge
from lpm_integrations.bench.progress import Bar

LOCOMO = Path(__file__).resolve().parents[2] / "shared/data/locomo/locomo10.json"
ROW = {
    "question", "answer", "category", "evidence", "response", "adversarial_answer", "speaker_1_memories", "speaker_2_memories",
    "num_speaker_1_memories", "num_speaker_2_memories", "speaker_1_memory_time", "speaker_2_memory_time", "response_time",
}  # fmt: skip


class Recorder:
    """A Mem0-style client that keeps everything in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.calls: list[tuple[str, ...]] = []

    def add(self, messages: list[dict[str, str]], *, user_id: str, metadata: dict[str, str]) -> None:
        self.calls.append(("add", user_id))
        self.kept.setdefault(user_id, []).extend({"memory": item["content"], "metadata": metadata, "score": 0.504} for item in messages)

    def delete_all(self, *, user_id: str) -> None:
        self.calls.append(("delete_all", user_id))
        self.kept.pop(user_id, None)

    def search(self, query: str, *, filters: dict[str, str], top_k: int) -> Any:
        assert top_k == 30
        return {"results": self.kept[filters["user_id"]][:top_k]}


class Answers:
    """Answers from a list, or raises; its window holds `window` characters."""

    name = "answers"

    def __init__(self, *, fail_on: str = "", window: int = 10**9, stop_after: int = 10**9) -> None:
        self.fail_on, self.window, self.left = fail_on, window, stop_after
        self.prompts: list[str] = []

    def fits(self, prompt: str) -> bool:
        return len(prompt) <= self.window

    def answer(self, prompt: str) -> str:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.prompts.append(prompt)
        if self.fail_on and self.fail_on in prompt:
            raise RuntimeError("no credit left")
        return '{"label": "CORRECT"}' if "grade" in prompt else "Oslo"


@pytest.fixture(scope="module")
def sample() -> list[Conversation]:
    return load_locomo(SAMPLE)


def go(sample: list[Conversation], folder: Path, memory: Any, answerer: Any, judge: Judge | None = None, **config: Any) -> dict[str, Any]:
    with Bar("mem0", Console(file=StringIO())) as bar:
        return run_mem0(sample, memory, answerer, judge, folder, prompt=ANSWER_PROMPT, config=config, bar=bar)


def test_locomo_takes_exactly_6022_add_calls_with_the_dates_as_they_are_written() -> None:
    if not LOCOMO.exists():
        pytest.skip("locomo10.json is not here (CC BY-NC, not part of the project)")
    loaded = load_locomo(LOCOMO)
    raw = json.loads(LOCOMO.read_text("utf-8"))

    calls = [call for index, conversation in enumerate(loaded) for call in add_calls(conversation, index)]

    assert len(calls) == 6022
    assert len({call.user_id for call in calls}) == 20
    assert {call.user_id for call in calls if call.user_id.endswith("_0")} == {"Caroline_0", "Melanie_0"}
    assert {len(call.messages) for call in calls} == {1, 2}
    written = {item["conversation"][key] for item in raw for key in item["conversation"] if key.endswith("_date_time")}
    assert {call.metadata["timestamp"] for call in calls} <= written


def test_the_two_streams_of_a_session_mirror_each_other(sample: list[Conversation]) -> None:
    conversation = sample[0]
    streams: dict[str, list[Any]] = {}
    for call in add_calls(conversation, 7):
        streams.setdefault(call.user_id, []).extend(call.messages)

    one, other = streams[f"{conversation.speaker_a}_7"], streams[f"{conversation.speaker_b}_7"]
    first = conversation.sessions[0].turns[0]
    assert one[0]["content"] == f"{first.speaker}: {first.text}"
    assert [item["content"] for item in one] == [item["content"] for item in other]
    assert all({a["role"], b["role"]} == {"user", "assistant"} for a, b in zip(one, other, strict=True))
    assert all((item["role"] == "user") is item["content"].startswith(conversation.speaker_a + ": ") for item in one)


def test_a_third_speaker_is_refused(sample: list[Conversation]) -> None:
    from dataclasses import replace

    with pytest.raises(DatasetError, match="Zed"):
        list(add_calls(replace(sample[0], speaker_b="Zed"), 0))


def test_result_and_score_files_have_the_row_format(sample: list[Conversation], tmp_path: Path) -> None:
    document = go(sample, tmp_path, Recorder(), Answers(), Judge(Answers()))

    results, scores = (json.loads((tmp_path / name).read_text("utf-8")) for name in ("results.json", "scores.json"))
    assert list(results) == ["0", "1"]
    assert all(set(row) == ROW for rows in results.values() for row in rows)
    assert [len(rows) for rows in results.values()] == [12, 12]
    memory = results["0"][0]["speaker_1_memories"][0]
    assert set(memory) == {"memory", "timestamp", "score"}
    assert memory["score"] == 0.5
    assert results["0"][0]["num_speaker_1_memories"] == 30 == len(results["0"][0]["speaker_1_memories"])
    scored = [row for rows in scores.values() for row in rows]
    assert {row["category"] for row in scored} == {"1", "2", "3", "4"}
    assert all(set(row) == {"question", "answer", "response", "category", "bleu_score", "f1_score", "llm_score"} for row in scored)
    assert document["overall"]["j"] == 1.0
    assert document["overall"]["n"] == len(scored)
    assert document["add_calls"] == sum(len(list(add_calls(item, index))) for index, item in enumerate(sample))


def test_without_a_judge_j_is_absent(sample: list[Conversation], tmp_path: Path) -> None:
    document = go(sample, tmp_path, Recorder(), Answers())

    assert document["overall"]["j"] is None
    assert document["overall"]["f1"] is not None


def test_a_row_is_scored_by_the_protocols_metrics() -> None:
    row = {"question": "Where?", "answer": "in Oslo", "category": 4, "response": "Oslo"}

    scored = score_row(row, None)

    assert scored is not None
    assert scored["f1_score"] == pytest.approx(2 / 3)
    assert score_row({**row, "category": 5}, None) is None


def test_an_interrupted_run_goes_on_and_adds_nothing_twice(sample: list[Conversation], tmp_path: Path) -> None:
    memory = Recorder()
    with pytest.raises(KeyboardInterrupt):
        go(sample, tmp_path, memory, Answers(stop_after=15))
    kept = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [len(rows) for rows in kept.values()] == [12, 3]
    adds = memory.calls.count(("add", f"{sample[0].speaker_a}_0"))
    again = Answers()

    document = go(sample, tmp_path, memory, again)

    assert document["answered"] == 24
    assert len(again.prompts) == 24 - 15
    assert memory.calls.count(("add", f"{sample[0].speaker_a}_0")) == adds


def test_a_conversation_added_in_part_is_added_anew(sample: list[Conversation], tmp_path: Path) -> None:
    memory = Recorder()
    go(sample[:1], tmp_path, memory, Answers())
    state = json.loads((tmp_path / "progress.json").read_text("utf-8"))
    (tmp_path / "progress.json").write_text(json.dumps({**state, "added": {}}))

    go(sample[:1], tmp_path, memory, Answers())

    user = f"{sample[0].speaker_a}_0"
    assert memory.calls.count(("delete_all", user)) == 2
    assert len(memory.kept[user]) == sum(len(session.turns) for session in sample[0].sessions)


def test_a_folder_of_another_run_is_refused(sample: list[Conversation], tmp_path: Path) -> None:
    go(sample, tmp_path, Recorder(), Answers(), backend="lpm")

    with pytest.raises(InvalidInputError, match="backend"):
        go(sample, tmp_path, Recorder(), Answers(), backend="rag")


def test_an_answerer_that_raises_is_recorded_and_the_rest_is_intact(sample: list[Conversation], tmp_path: Path) -> None:
    question = sample[0].questions[2]

    document = go(sample, tmp_path, Recorder(), Answers(fail_on=f"Question: {question.question}\n"))

    assert document["failures"] == [{"question": question.id, "error": "RuntimeError: no credit left"}]
    rows = json.loads((tmp_path / "results.json").read_text("utf-8"))["0"]
    assert [row["response"] for row in rows].count("") == 1
    assert len(rows) == 12


def test_memories_that_do_not_fit_the_window_are_left_out_worst_first(sample: list[Conversation], tmp_path: Path) -> None:
    answers = Answers(window=2000)

    document = go(sample[:1], tmp_path, Recorder(), answers)

    assert document["memories_left_out_of_prompts"] > 0
    assert all(1500 < len(prompt) <= 2000 for prompt in answers.prompts)
    assert f"{sample[0].sessions[0].turns[0].text[:20]}" in answers.prompts[0]


def test_a_judge_that_says_neither_is_a_recorded_failure(sample: list[Conversation], tmp_path: Path) -> None:
    class Vague(Answers):
        def answer(self, prompt: str) -> str:
            return "It depends."

    document = go(sample[:1], tmp_path, Recorder(), Answers(), Judge(Vague()))

    assert document["overall"]["j"] is None
    assert len(document["failures"]) == document["overall"]["n"]


@pytest.mark.parametrize("name", ["nowhere", "no.such.module:make", "json:nothing", "json:JSONDecoder"])
def test_a_chat_model_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name.partition(":")[0]):
        ChatAnswerer(name)
