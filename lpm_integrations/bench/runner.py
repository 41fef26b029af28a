"""Runs arms over cases and sums up: scores per category, costs, and what it was measured with."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from lpm_core.engine import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_core.training.embedded import environment
from lpm_integrations.bench.arms import Arm, make_arm
from lpm_integrations.bench.cases import Case, TestQuestion
from lpm_integrations.bench.datasets import longmemeval, personamem
from lpm_integrations.bench.datasets.locomo import CATEGORIES
from lpm_integrations.bench.metrics import retrieval_recall
from lpm_integrations.bench.partial import Partial
from lpm_integrations.bench.progress import Bar, narrow_table
from lpm_integrations.bench.significance import seeds_apart

if TYPE_CHECKING:
    from lpm_integrations.bench.models import ChatAnswerer, Judge

__all__ = ["category_names", "markdown", "mean_rows", "print_table", "rows", "run"]

_log = logging.getLogger(__name__)

_SHOWN = 400  # characters of a turn that is kept beside an answer

Score = Callable[[str, TestQuestion], float]
"""Score of an answer to a question, 0 to 1."""


def run(
    benchmark: str,
    cases: Sequence[Case],
    arms: Sequence[str],
    score: Score,
    *,
    engine: LPM,
    config: Mapping[str, Any],
    console: Console,
    max_new_tokens: int = 24,
    keep_answers: bool = False,
    choose: bool = False,
    answerer: ChatAnswerer | None = None,
    judge: Judge | None = None,
    partial: Path | None = None,
    resume: bool = False,
    jobs: int = 1,
) -> dict[str, Any]:
    """All arms on all cases, one engine and one machine. Returns the result document of this benchmark.

    An arm's cost "build_s" is the seconds it took to write a history, and to train where it trains, in the mean; absent where nothing was left to ask.

    choose: arms choose among a question's options by their likelihood instead of writing an answer. answerer: a chat model that answers in the
    backbone's place, from text. judge: gives J to answers with a gold, beside the score. partial: file that keeps each answer as it
    comes; with `resume` those that it has are not asked again. keep_answers: the document holds every answer, and under "questions" what was asked
    and the texts of the turns that an arm retrieved or that hold the answer. jobs: how many cases are asked side by side; the answers are the same
    (their likelihoods to the last bit where each has as many cores), the times are those of a machine that does several things at once. A question
    on which an arm or its answerer raises an error is recorded as a failure with score 0, and left out of the costs; one that the judge fails on is
    recorded too, and has no J.
    """
    backbone = {
        "name": Path(engine.backbone.name).name,
        "fingerprint": engine.backbone.fingerprint,
        "memory": engine.weights.fingerprint,
        "window": engine.backbone.window,
    }
    if jobs < 1:
        raise InvalidInputError(f"jobs {jobs}: at least 1")
    settings = {**config, "max_new_tokens": max_new_tokens, "decoding": "options by log-likelihood per token" if choose else "greedy", "backbone": backbone}
    if answerer:
        settings |= {"answerer": answerer.name, "max_new_tokens": None, "decoding": "the answerer's own"}
    if judge:
        settings["judge"] = judge.name
    results: dict[str, Any] = {}
    built: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="lpm-bench-") as name, Bar(benchmark, console) as bar, ExitStack() as opened:
        bar.start(len(arms) * sum(1 + len(case.questions) for case in cases))
        own = opened.enter_context(engine.on_store(f"sqlite:///{(Path(name) / 'bench.db').as_posix()}"))
        kept = opened.enter_context(Partial(partial, {"benchmark": benchmark, **settings}, resume=resume))
        for arm_name in arms:
            bar.say(f"{benchmark} · {arm_name}")
            if any(kept.get(arm_name, question.id) is None for case in cases for question in case.questions):
                arm = make_arm(arm_name, own, Path(name), max_new_tokens, answerer)
                with closing(arm):
                    built[arm_name] = _ask(arm_name, arm, cases, score, kept, bar, choose=choose, judge=judge, jobs=jobs)
            answered = [(question, row) for case in cases for question in case.questions if (row := kept.get(arm_name, question.id))]
            results[arm_name] = _summary(answered, keep_answers)
            if arm_name in built:
                results[arm_name]["cost"]["build_s"] = round(built[arm_name] / len(cases), 4)
    asked = {"questions": _questions(cases, results)} if keep_answers else {}
    return {"benchmark": benchmark, "arms": results, **asked, "config": {**settings, "jobs": jobs, "arms": list(arms)}, "environment": environment()}


def _ask(name: str, arm: Arm, cases: Sequence[Case], score: Score, kept: Partial, bar: Bar, *, choose: bool, judge: Judge | None, jobs: int) -> float:
    """Write every history, then ask what was not asked yet. Returns the seconds that writing took, and training where an arm trains."""
    begin = time.perf_counter()
    for case in cases:
        arm.write(case)
        bar.advance()
    arm.ready()
    built = time.perf_counter() - begin
    stopped = Event()

    def ask(case: Case) -> None:
        for question in case.questions:
            if stopped.is_set():
                return
            if kept.get(name, question.id) is None:
                row = _row(arm, case, question, score, choose=choose)
                kept.add({"arm": name, "id": question.id, **row, **_judged(judge, question, row)})
            bar.advance()

    with _threads(jobs if arm.side_by_side else 1) as pool:
        try:
            for asked in [pool.submit(ask, case) for case in cases]:
                asked.result()
        finally:
            stopped.set()
    return built


@contextmanager
def _threads(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that share the machine's cores between them."""
    cores = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // jobs))
    try:
        with ThreadPoolExecutor(jobs) as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)


def _row(arm: Arm, case: Case, question: TestQuestion, score: Score, *, choose: bool) -> dict[str, Any]:
    try:
        outcome = arm.choose(case, question) if choose else arm.answer(case, question)
    except Exception as error:  # noqa: BLE001 (an answerer of someone else's may raise anything; one question must not end the run)
        _log.warning("question %s failed: %s", question.id, error)
        return {"answer": "", "score": 0.0, "nll": None, "error": f"{type(error).__name__}: {error}"}
    row = asdict(outcome)
    retrieved = row.pop("retrieved")
    if retrieved is not None:
        row |= {"retrieved": len(retrieved), "recall": retrieval_recall(retrieved, question.evidence), "turns": list(retrieved)}
    return {**row, "score": score(outcome.answer, question)}


def _judged(judge: Judge | None, question: TestQuestion, row: Mapping[str, Any]) -> dict[str, Any]:
    """J of an answer, or the judge's failure; nothing where there is no judge or no gold."""
    if judge is None or question.gold is None or "error" in row:
        return {}
    try:
        return {"j": judge.score(question.text, question.gold, row["answer"])}
    except Exception as error:  # noqa: BLE001 (as above)
        _log.warning("judging %s failed: %s", question.id, error)
        return {"judge_error": f"{type(error).__name__}: {error}"}


_Answered = Sequence[tuple[TestQuestion, Mapping[str, Any]]]


def _summary(answered: _Answered, keep_answers: bool) -> dict[str, Any]:
    def mean(chosen: _Answered) -> float | None:
        return round(statistics.fmean(row["score"] for _, row in chosen), 4) if chosen else None

    rows = [row for _, row in answered if "error" not in row]
    losses = [row["nll"] for row in rows if row["nll"] is not None]
    recalls = [row["recall"] for row in rows if row.get("recall") is not None]
    categories = sorted({question.category for question, _ in answered})
    tags = sorted({tag for question, _ in answered for tag in question.tags})

    def by_question(key: str, digits: int) -> dict[str, dict[str, float]]:
        return {
            str(number): {question.id: round(row[key], digits) for question, row in answered if question.category == number and row[key] is not None}
            for number in categories
        }

    summary: dict[str, Any] = {
        "overall": mean(answered),
        "categories": {str(number): mean([item for item in answered if item[0].category == number]) for number in categories},
        "tags": {tag: mean([item for item in answered if tag in item[0].tags]) for tag in tags},
        "n": len(answered),
        "counts": {str(number): sum(question.category == number for question, _ in answered) for number in categories}
        | {tag: sum(tag in question.tags for question, _ in answered) for tag in tags},
        "gold_nll": round(statistics.fmean(losses), 4) if losses else None,
        "cost": {
            name: round(middle(counted), digits) if (counted := [row[name] for row in rows if row[name] is not None]) else None
            for name, middle, digits in (
                ("prompt_tokens", statistics.fmean, 1),
                ("soft_tokens", statistics.fmean, 1),
                ("kv_bytes", statistics.fmean, None),
                ("search_ms", statistics.median, 2),
                ("total_ms", statistics.median, 2),
            )
        },
        "scores": by_question("score", 4),
        **({"gold_nlls": by_question("nll", 3)} if losses else {}),
    }
    if recalls:
        retrieved = round(statistics.fmean(row["retrieved"] for row in rows), 2)
        summary["retrieval"] = {"recall": round(statistics.fmean(recalls), 4), "n": len(recalls), "retrieved": retrieved}
    judged = [row["j"] for _, row in answered if "j" in row]
    if judged:
        summary["j"] = {"overall": round(statistics.fmean(judged), 4), "n": len(judged)}
    failures = [{"id": question.id, "error": row[key]} for question, row in answered for key in ("error", "judge_error") if key in row]
    if failures:
        summary["failures"] = failures
    if keep_answers:
        summary["answers"] = [
            {"id": question.id, **{name: row[name] for name in ("answer", "score", "nll")}, **({"turns": row["turns"]} if "turns" in row else {})}
            for question, row in answered
        ]
    return summary


def _questions(cases: Sequence[Case], results: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, by question id; `turns` are beginnings of the turns that arms retrieved or that hold the answer, by key."""
    shown: dict[str, dict[str, None]] = {}
    for result in results.values():
        for row in result["answers"]:
            shown.setdefault(row["id"], {}).update(dict.fromkeys(row.get("turns", ())))
    found: dict[str, Any] = {}
    for case in cases:
        texts = {turn.key: turn.content for turn in case.turns}
        for question in case.questions:
            keys = [key for key in (*question.evidence, *shown[question.id]) if key in texts]
            turns = {key: texts[key] if len(texts[key]) <= _SHOWN else f"{texts[key][:_SHOWN]}…" for key in keys}
            found[question.id] = {"question": question.text, "gold": question.gold, "evidence": list(question.evidence), "turns": turns}
            found[question.id] |= {"options": list(question.options)} if question.options else {}
    return found


_LOCOMO = {str(number): f"{number} {name}" for number, name in CATEGORIES.items()}
_NAMES: Mapping[str, Mapping[str, str]] = {
    "probes": {
        "1": "joined",
        "2": "dated",
        "4": "told",
        "5": "never told",
        "6": "changed",
        "known_words": "known words",
        "open_vocabulary": "invented",
        "update": "latest value",
        "earlier": "earlier value",
    },
    "preferences": {"3": "open-domain", "known_words": "known words", "open_vocabulary": "invented"},
    "locomo": _LOCOMO,
    "handwritten": _LOCOMO,
    "own": _LOCOMO,
    "personamem": {str(number): f"{number} {name}" for number, name in enumerate(personamem.QUESTION_TYPES, start=1)},
    "longmemeval": {str(number): f"{number} {name}" for number, name in enumerate((*longmemeval.QUESTION_TYPES, "abstention"), start=1)},
}
_COSTS = ("prompt tok.", "soft tok.", "KV KiB", "search ms", "total ms")


def category_names(benchmark: str) -> Mapping[str, str]:
    """What to call the category ids of a benchmark: the id and its official name."""
    return _NAMES.get(benchmark, {})


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A result document as a table: headings, then scores and costs of one arm a row."""
    arms: Mapping[str, Any] = result["arms"]
    first = next(iter(arms.values()))
    columns = [*first["categories"], *first["tags"]]
    names = category_names(result["benchmark"])
    searched = any("retrieval" in row for row in arms.values())
    judged = any("j" in row for row in arms.values())
    table = [["arm", "overall", *(names.get(key, key) for key in columns), *(["J"] if judged else []), *(["recall"] if searched else []), "gold NLL", *_COSTS]]
    for arm, row in arms.items():
        scores = [row["overall"], *(row["categories"].get(key, row["tags"].get(key)) for key in columns)]
        scores += [row.get("j", {}).get("overall")] if judged else []
        scores += [*([row.get("retrieval", {}).get("recall")] if searched else []), row["gold_nll"]]
        cost = row["cost"]
        costs = [
            "–" if cost[name] is None else f"{cost[name] / unit:.{digits}f}"
            for name, unit, digits in (("prompt_tokens", 1, 0), ("soft_tokens", 1, 0), ("kv_bytes", 1024, 0), ("search_ms", 1, 1), ("total_ms", 1, 1))
        ]
        table.append([arm, *("–" if value is None else f"{value:.3f}" for value in scores), *costs])
    return table


def mean_rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Documents of one benchmark and other seeds as one table: headings, then mean and standard deviation over them of each arm that all have.

    Raises InvalidInputError as `seeds_apart` does, and for documents without an arm in common.
    """
    seeds_apart(results)
    shared = [arm for arm in results[0]["arms"] if all(arm in result["arms"] for result in results)]
    if not shared:
        raise InvalidInputError("the documents have no arm in common")
    names = category_names(results[0]["benchmark"])
    columns = [*dict.fromkeys(key for kind in ("categories", "tags") for result in results for key in result["arms"][shared[0]][kind])]
    table = [["arm", "overall", *(names.get(key, key) for key in columns)]]
    for arm in shared:
        found = [{"overall": result["arms"][arm]["overall"], **result["arms"][arm]["categories"], **result["arms"][arm]["tags"]} for result in results]
        scores = [[row[key] for row in found if row.get(key) is not None] for key in ("overall", *columns)]
        table.append([arm, *(f"{statistics.fmean(row):.3f}" + (f" ± {statistics.stdev(row):.3f}" if len(row) > 1 else "") for row in scores)])
    return table


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Scores and costs of a result document, one arm a column, so that a narrow terminal shows them whole."""
    headings, *lines = zip(*rows(result), strict=True)
    asked = next(iter(result["arms"].values()))["n"]
    shown = narrow_table(f"{result['benchmark']}: {asked} questions", headings)
    for number, line in enumerate(lines, start=1):
        shown.add_row(*line, end_section=number == len(lines) - len(_COSTS))
    console.print(shown)


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table, its headings first, for a README."""
    headings, *lines = table
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ruler, *lines))
