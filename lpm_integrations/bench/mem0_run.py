"""Runs the Mem0 protocol into a folder: results.json, scores.json, summary.json. The same call again goes on where it stopped."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lpm_core.exceptions import InvalidInputError
from lpm_core.training.embedded import environment
from lpm_integrations.bench.datasets.locomo import Conversation
from lpm_integrations.bench.files import read_json, write_json
from lpm_integrations.bench.mem0_protocol import add_calls, answer_row, score_row, summary, user_ids
from lpm_integrations.bench.models import Answerer, Judge
from lpm_integrations.bench.progress import Bar

if TYPE_CHECKING:
    from lpm_integrations.mem0 import Memory

__all__ = ["run_mem0"]

_log = logging.getLogger(__name__)

_SAVE_EVERY: Final = 25


def run_mem0(
    conversations: Sequence[Conversation],
    memory: Memory,
    answerer: Answerer,
    judge: Judge | None,
    folder: Path,
    *,
    prompt: str,
    config: Mapping[str, Any],
    bar: Bar,
) -> dict[str, Any]:
    """Add, search, answer and score; returns the summary.

    A question whose answerer or judge raises is recorded under "failures" with an empty response, or without J, and the run goes on.
    Raises InvalidInputError if the folder holds a run of another configuration.
    """
    wanted = {**config, "prompt": hashlib.sha256(prompt.encode()).hexdigest()[:16], "answerer": answerer.name, "judge": judge.name if judge else None}
    state = _state(folder, wanted)
    results: dict[str, list[dict[str, Any]]] = read_json(folder / "results.json") if (folder / "results.json").exists() else {}
    scores: dict[str, list[dict[str, Any]]] = {}
    bar.start(sum(len(list(add_calls(item, index))) for index, item in enumerate(conversations)) + sum(len(item.questions) for item in conversations))
    try:
        for index, conversation in enumerate(conversations):
            _add(memory, conversation, index, state, folder, bar)
        for index, conversation in enumerate(conversations):
            rows = results.setdefault(str(index), [])
            bar.advance(len(rows))
            for question in conversation.questions[len(rows) :]:
                row, dropped = _answered(memory, answerer, conversation, index, question, prompt, state)
                state["left_out"] += dropped
                rows.append(row)
                bar.advance(1)
                if len(rows) % _SAVE_EVERY == 0:
                    _save(folder, state, results)
    finally:
        _save(folder, state, results)
    for key, rows in results.items():
        scores[key] = [scored for number, row in enumerate(rows) if (scored := _scored(row, judge, f"{key}/{number}", state)) is not None]
    write_json(scores, folder / "scores.json")
    document = {"benchmark": "mem0", **summary(results, scores), "config": wanted}
    document |= {"add_calls": sum(state["added"].values()), "add_seconds": round(state["add_seconds"], 2)}
    document |= {"memories_left_out_of_prompts": state["left_out"], "failures": state["failures"], "environment": environment()}
    write_json(document, folder / "summary.json")
    return document


def _state(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / "progress.json"
    if not path.exists():
        state = {"config": dict(wanted), "added": {}, "add_seconds": 0.0, "left_out": 0, "failures": []}
        write_json(state, path)
        return state
    found: dict[str, Any] = read_json(path)
    if found.get("config") != dict(wanted):
        differs = sorted(key for key in {*wanted, *found.get("config", {})} if wanted.get(key) != found.get("config", {}).get(key))
        raise InvalidInputError(f"{folder} holds a run with another {', '.join(differs)}: name another folder, or remove this one")
    return found


def _save(folder: Path, state: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    write_json(results, folder / "results.json")
    write_json(state, folder / "progress.json")


def _add(memory: Memory, conversation: Conversation, index: int, state: dict[str, Any], folder: Path, bar: Bar) -> None:
    """Make the add calls of a conversation that was not added whole; what is there of it is deleted first, as the protocol does."""
    calls = list(add_calls(conversation, index))
    if str(index) not in state["added"]:
        for user_id in user_ids(conversation, index):
            memory.delete_all(user_id=user_id)
        begin = time.perf_counter()
        for call in calls:
            memory.add(list(call.messages), user_id=call.user_id, metadata=call.metadata)
            bar.advance(1)
        state["add_seconds"] += time.perf_counter() - begin
        state["added"][str(index)] = len(calls)
        write_json(state, folder / "progress.json")
    else:
        bar.advance(len(calls))


def _answered(memory: Memory, answerer: Answerer, conversation: Conversation, index: int, question: Any, prompt: str, state: dict[str, Any]) -> Any:
    try:
        return answer_row(memory, answerer, conversation, index, question, prompt)
    except Exception as error:  # noqa: BLE001 (a model of someone else's may raise anything; one question must not end the run)
        _log.warning("question %s failed: %s", question.id, error)
        state["failures"].append({"question": question.id, "error": f"{type(error).__name__}: {error}"})
        row, _ = answer_row(memory, _Silent(answerer), conversation, index, question, prompt)
        return row, 0


def _scored(row: Mapping[str, Any], judge: Judge | None, name: str, state: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return score_row(row, judge)
    except Exception as error:  # noqa: BLE001 (as above: the judge is a model of someone else's)
        _log.warning("judging %s failed: %s", name, error)
        state["failures"].append({"question": name, "error": f"judge: {type(error).__name__}: {error}"})
        return score_row(row, None)


class _Silent:
    """Stands in for an answerer that raised: the searches are kept, the response is empty."""

    def __init__(self, answerer: Answerer) -> None:
        self.name = answerer.name

    def fits(self, prompt: str) -> bool:  # noqa: ARG002 (the protocol's signature)
        return True

    def answer(self, prompt: str) -> str:  # noqa: ARG002
        return ""
