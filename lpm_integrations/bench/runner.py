"""Runs arms over cases and sums up: scores per category, costs, and what it was measured with."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lpm_core.engine import LPM
from lpm_core.training.embedded import environment
from lpm_integrations.bench.arms import Outcome, make_arm
from lpm_integrations.bench.cases import Case, TestQuestion
from lpm_integrations.bench.datasets.locomo import CATEGORIES

__all__ = ["markdown", "print_table", "rows", "run", "write_json"]

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
) -> dict[str, Any]:
    """All arms on all cases, one engine and one machine. Returns the result document of this benchmark."""
    total = len(arms) * sum(1 + len(case.questions) for case in cases)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="lpm-bench-") as name, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(benchmark, total=total)
        own = engine.on_store(f"sqlite:///{(Path(name) / 'bench.db').as_posix()}")
        try:
            for arm_name in arms:
                progress.update(task, description=f"{benchmark} · {arm_name}")
                arm = make_arm(arm_name, own, Path(name), max_new_tokens)
                for case in cases:
                    arm.write(case)
                    progress.advance(task)
                answered: list[tuple[TestQuestion, Outcome, float]] = []
                for case in cases:
                    for question in case.questions:
                        outcome = arm.answer(case, question)
                        answered.append((question, outcome, score(outcome.answer, question)))
                        progress.advance(task)
                results[arm_name] = _summary(answered, keep_answers)
        finally:
            own.close()
    backbone = {
        "name": Path(engine.backbone.name).name,
        "fingerprint": engine.backbone.fingerprint,
        "memory": engine.weights.fingerprint,
        "window": engine.backbone.window,
    }
    return {
        "benchmark": benchmark,
        "arms": results,
        "config": {**config, "arms": list(arms), "max_new_tokens": max_new_tokens, "decoding": "greedy", "backbone": backbone},
        "environment": environment(),
    }


def _summary(answered: Sequence[tuple[TestQuestion, Outcome, float]], keep_answers: bool) -> dict[str, Any]:
    def mean(chosen: Sequence[tuple[TestQuestion, Outcome, float]]) -> float | None:
        return round(statistics.fmean(value for _, _, value in chosen), 4) if chosen else None

    outcomes = [outcome for _, outcome, _ in answered]
    losses = [outcome.nll for outcome in outcomes if outcome.nll is not None]
    categories = sorted({question.category for question, _, _ in answered})
    tags = sorted({tag for question, _, _ in answered for tag in question.tags})
    summary: dict[str, Any] = {
        "overall": mean(answered),
        "categories": {str(number): mean([row for row in answered if row[0].category == number]) for number in categories},
        "tags": {tag: mean([row for row in answered if tag in row[0].tags]) for tag in tags},
        "n": len(answered),
        "counts": {str(number): sum(row[0].category == number for row in answered) for number in categories}
        | {tag: sum(tag in row[0].tags for row in answered) for tag in tags},
        "gold_nll": round(statistics.fmean(losses), 4) if losses else None,
        "cost": {
            "prompt_tokens": round(statistics.fmean(outcome.prompt_tokens for outcome in outcomes), 1),
            "soft_tokens": round(statistics.fmean(outcome.soft_tokens for outcome in outcomes), 1),
            "kv_bytes": round(statistics.fmean(outcome.kv_bytes for outcome in outcomes)),
            "search_ms": round(statistics.median(outcome.search_ms for outcome in outcomes), 2),
            "total_ms": round(statistics.median(outcome.total_ms for outcome in outcomes), 2),
        },
    }
    if keep_answers:
        summary["answers"] = [{"id": question.id, "answer": outcome.answer, "score": value, "nll": outcome.nll} for question, outcome, value in answered]
    return summary


_NAMES: Mapping[str, Mapping[str, str]] = {
    "probes": {"4": "told", "5": "never told", "known_words": "known words", "open_vocabulary": "invented"},
    "locomo": {str(number): f"{number} {name}" for number, name in CATEGORIES.items()},
}
_COSTS = ("prompt tok.", "soft tok.", "KV KiB", "search ms", "total ms")


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A result document as a table: headings, then scores and costs of one arm a row."""
    arms: Mapping[str, Any] = result["arms"]
    first = next(iter(arms.values()))
    columns = [*first["categories"], *first["tags"]]
    names = _NAMES.get(result["benchmark"], {})
    table = [["arm", "overall", *(names.get(key, key) for key in columns), "gold NLL", *_COSTS]]
    for arm, row in arms.items():
        scores = [row["overall"], *(row["categories"].get(key, row["tags"].get(key)) for key in columns), row["gold_nll"]]
        cost = row["cost"]
        costs = (
            f"{cost['prompt_tokens']:.0f}",
            f"{cost['soft_tokens']:.0f}",
            f"{cost['kv_bytes'] / 1024:.0f}",
            f"{cost['search_ms']:.1f}",
            f"{cost['total_ms']:.1f}",
        )
        table.append([arm, *("–" if value is None else f"{value:.3f}" for value in scores), *costs])
    return table


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Scores and costs of a result document, one arm a row; two tables, so that both fit a narrow terminal."""
    table = rows(result)
    split = len(table[0]) - len(_COSTS)
    asked = next(iter(result["arms"].values()))["n"]
    for title, columns in ((f"{result['benchmark']}: scores on {asked} questions", range(1, split)), ("cost of a question", range(split, len(table[0])))):
        shown = Table(title=title)
        for index in (0, *columns):
            shown.add_column(table[0][index], justify="right" if index else "left")
        for line in table[1:]:
            shown.add_row(*(line[index] for index in (0, *columns)))
        console.print(shown)


def markdown(result: Mapping[str, Any]) -> str:
    """The same table for a README."""
    headings, *lines = rows(result)
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ruler, *lines))


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write a result document; a reader sees the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(draft, path)
