"""The Mem0 protocol on LoCoMo (Chhikara et al., 2025; the evaluation of mem0ai/mem0): its add calls, searches, rows and scores.

Two users per conversation, `{speaker}_{index}`. Each session is sent as two mirrored streams, in each of which one speaker is the user and the other
the assistant, in batches of two messages with the session's date as metadata. Each question is searched in both memories, and one prompt gives both
lists. Category 5 is answered and not scored. The wording of the prompts is this project's; a prompt file can be given instead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from lpm_core.exceptions import DatasetError
from lpm_integrations.bench.datasets.locomo import CATEGORIES, Conversation, LocomoQuestion
from lpm_integrations.bench.metrics import mem0_bleu1, mem0_f1
from lpm_integrations.bench.models import Answerer, Judge

__all__ = ["ANSWER_PROMPT", "BATCH", "TOP_K", "AddCall", "add_calls", "answer_row", "score_row", "summary", "user_ids"]

TOP_K: Final = 30
"""Memories searched per speaker."""
BATCH: Final = 2
"""Messages of one add call."""

ANSWER_PROMPT: Final = """Two people talked on several days. Below is what memory found about each of them, every line with its date.
Answer the question from these lines alone. Work out dates from the date of a line ("last year" in a line of 2022 is 2021). Where lines contradict each \
other, the latest counts. Answer with fewer than 5-6 words.

Memories for user {{speaker_1_user_id}}:
{{speaker_1_memories}}

Memories for user {{speaker_2_user_id}}:
{{speaker_2_memories}}

Question: {{question}}
Answer:"""
"""Placeholders as in Mem0's own prompt, whose text can be given in its place."""


class Searches(Protocol):
    """The one call of a Mem0-style client that answering needs."""

    def search(self, query: str, *, filters: Mapping[str, Any], top_k: int) -> Any:
        """{"results": [{"memory", "metadata", "score"}]}."""
        ...


@dataclass(frozen=True)
class AddCall:
    """One call of `add`: whose memory, which messages, which metadata."""

    user_id: str
    messages: tuple[Mapping[str, str], ...]
    metadata: Mapping[str, str]


def user_ids(conversation: Conversation, index: int) -> tuple[str, str]:
    """The two users of a conversation."""
    return f"{conversation.speaker_a}_{index}", f"{conversation.speaker_b}_{index}"


def add_calls(conversation: Conversation, index: int) -> Iterator[AddCall]:
    """The add calls of one conversation: 6,022 over the whole of LoCoMo. Raises DatasetError for a turn of a third speaker."""
    speakers = (conversation.speaker_a, conversation.speaker_b)
    for session in conversation.sessions:
        for turn in session.turns:
            if turn.speaker not in speakers:
                raise DatasetError(f"{conversation.id}, {turn.dia_id}: the speaker {turn.speaker!r} is neither {speakers[0]!r} nor {speakers[1]!r}")
        for own, user_id in zip(speakers, user_ids(conversation, index), strict=True):
            messages = [{"role": "user" if turn.speaker == own else "assistant", "content": f"{turn.speaker}: {turn.text}"} for turn in session.turns]
            for start in range(0, len(messages), BATCH):
                yield AddCall(user_id, tuple(messages[start : start + BATCH]), {"timestamp": _as_written(session.at)})


def answer_row(
    memory: Searches, answerer: Answerer, conversation: Conversation, index: int, question: LocomoQuestion, prompt: str
) -> tuple[dict[str, Any], int]:
    """One row of the result file, and how many memories had to be left out of the prompt for the answerer's window."""
    found: list[list[dict[str, Any]]] = []
    seconds: list[float] = []
    for user_id in user_ids(conversation, index):
        begin = time.perf_counter()
        results = memory.search(question.question, filters={"user_id": user_id}, top_k=TOP_K)["results"]
        seconds.append(time.perf_counter() - begin)
        found.append([{"memory": hit["memory"], "timestamp": hit["metadata"].get("timestamp", ""), "score": round(hit["score"], 2)} for hit in results])
    text, dropped = _fitted(prompt, answerer, conversation, found, question.question)
    begin = time.perf_counter()
    response = answerer.answer(text)
    row = {
        "question": question.question,
        "answer": question.answer,
        "category": question.category,
        "evidence": list(question.evidence),
        "response": response,
        "adversarial_answer": question.adversarial_answer or "",
        "speaker_1_memories": found[0],
        "speaker_2_memories": found[1],
        "num_speaker_1_memories": len(found[0]),
        "num_speaker_2_memories": len(found[1]),
        "speaker_1_memory_time": seconds[0],
        "speaker_2_memory_time": seconds[1],
        "response_time": time.perf_counter() - begin,
    }
    return row, dropped


def score_row(row: Mapping[str, Any], judge: Judge | None) -> dict[str, Any] | None:
    """The scored row; None for category 5, which the protocol leaves out. Without a judge `llm_score` is None."""
    if int(row["category"]) == 5:
        return None
    question, gold, response = (str(row[name]) for name in ("question", "answer", "response"))
    return {
        "question": question,
        "answer": gold,
        "response": response,
        "category": str(row["category"]),
        "bleu_score": mem0_bleu1(response, gold),
        "f1_score": mem0_f1(response, gold),
        "llm_score": judge.score(question, gold, response) if judge else None,
    }


def summary(results: Mapping[str, Sequence[Mapping[str, Any]]], scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Means over questions, overall and by category id, and search and total times (seconds)."""
    scored = [row for rows in scores.values() for row in rows]
    answered = [row for rows in results.values() for row in rows]
    categories = {f"{number} {name}": _means([row for row in scored if row["category"] == str(number)]) for number, name in CATEGORIES.items() if number != 5}
    search = [row["speaker_1_memory_time"] + row["speaker_2_memory_time"] for row in answered]
    total = [spent + row["response_time"] for spent, row in zip(search, answered, strict=True)]
    return {
        "overall": _means(scored),
        "categories": {name: means for name, means in categories.items() if means["n"]},
        "answered": len(answered),
        "search_seconds": _spread(search),
        "total_seconds": _spread(total),
    }


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [row[name] for row in rows if row[name] is not None]
        return round(sum(values) / len(values), 4) if values else None

    return {"n": len(rows), "f1": mean("f1_score"), "bleu1": mean("bleu_score"), "j": mean("llm_score")}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    return {name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4) if ordered else None for name, share in (("p50", 0.5), ("p95", 0.95))}


def _fitted(prompt: str, answerer: Answerer, conversation: Conversation, found: Sequence[Sequence[Mapping[str, Any]]], question: str) -> tuple[str, int]:
    """The prompt with as many of the best memories of both speakers as fit the answerer's window."""

    def filled(keep: int) -> str:
        text = prompt
        for number, (speaker, memories) in enumerate(zip((conversation.speaker_a, conversation.speaker_b), found, strict=True), start=1):
            lines = json.dumps([f"{item['timestamp']}: {item['memory']}" for item in memories[:keep]], indent=4, ensure_ascii=False)
            text = text.replace(f"{{{{speaker_{number}_user_id}}}}", speaker).replace(f"{{{{speaker_{number}_memories}}}}", lines)
        return text.replace("{{question}}", question)

    low, high = 0, max(len(memories) for memories in found)
    if not answerer.fits(filled(high)):
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if answerer.fits(filled(middle)) else (low, middle)
        high = low
    return filled(high), sum(max(0, len(memories) - high) for memories in found)


def _as_written(at: datetime) -> str:
    """A session's date in LoCoMo's own form: "1:56 pm on 8 May, 2023"."""
    return f"{at.hour % 12 or 12}:{at:%M} {'am' if at.hour < 12 else 'pm'} on {at.day} {at:%B}, {at.year}"
