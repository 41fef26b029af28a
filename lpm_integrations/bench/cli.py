"""`lpm bench`: comparisons anyone can run again."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lpm_core.training.corpus import UNKNOWN

__all__ = ["app"]

app = typer.Typer(help="Compare LPM with no memory, full context and RAG.", no_args_is_help=True)

Arms = Annotated[str, typer.Option(help="Comma-separated: none, shuffled, full, rag, lpm.")]
Out = Annotated[Path | None, typer.Option("--json", help="Write the result document here.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub name of a Qwen3. Default: the embedded one.")]
Memory = Annotated[str | None, typer.Option(help="Folder of the model's memory weights.")]

_ABSTAINS = "No information available"


def _engine(model: str | None, memory: str | None) -> Any:
    from lpm_core.engine import LPM

    return LPM.from_pretrained(model, memory=memory, store="sqlite://")


def exact(answer: str, gold: str) -> float:
    """1 if answer and gold are the same words, whatever case and punctuation."""

    def words(text: str) -> list[str]:
        return re.findall(r"[\w']+", text.lower())

    return float(words(answer) == words(gold))


@app.command()
def probes(
    arms: Arms = "none,shuffled,full,rag,lpm",
    people: Annotated[int, typer.Option(help="Unseen users.")] = 200,
    facts: Annotated[int, typer.Option(help="Facts each of them tells.")] = 8,
    questions: Annotated[int, typer.Option(help="Questions about each of them.")] = 8,
    seed: int = 0,
    out: Out = None,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """Held-out people: unseen users, wordings and values. Score: exact match."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import probe_cases
    from lpm_integrations.bench.runner import print_table, run, write_json

    names = arm_names(arms)
    console = Console(stderr=True)
    config = {"people": people, "facts": facts, "questions": questions, "seed": seed, "split": "test", "score": "exact match of words"}
    with _engine(model, memory) as engine:
        cases = list(probe_cases(people, seed, facts, questions))
        result = run(
            "probes",
            cases,
            names,
            lambda answer, question: exact(answer, question.gold or ""),
            engine=engine,
            config=config,
            console=console,
            keep_answers=False,
        )
    print_table(result, Console())
    if out:
        write_json(result, out)


@app.command()
def locomo(
    data: Annotated[Path, typer.Option(help="locomo10.json, or a file of the same format.")],
    arms: Arms = "none,full,rag,lpm",
    conversations: Annotated[int | None, typer.Option(help="How many conversations, from the first on. Default: all.")] = None,
    questions: Annotated[int | None, typer.Option(help="Questions drawn from each conversation. Default: all.")] = None,
    seed: int = 0,
    keep_answers: Annotated[bool, typer.Option(help="Keep every answer in the document; answers may quote the data, mind its licence.")] = False,
    out: Out = None,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """LoCoMo by its official metric, per category id, with the likelihood of the gold answers."""
    from dataclasses import replace

    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import TestQuestion, locomo_case
    from lpm_integrations.bench.datasets.locomo import load_locomo
    from lpm_integrations.bench.metrics import locomo_f1
    from lpm_integrations.bench.runner import print_table, run, write_json

    names = arm_names(arms)
    console = Console(stderr=True)
    loaded = load_locomo(data)
    chosen = loaded[:conversations]
    cases = []
    for conversation in chosen:
        case = locomo_case(conversation)
        if questions is not None and questions < len(case.questions):
            picked = sorted(random.Random(f"{seed}/{case.user_id}").sample(range(len(case.questions)), questions))
            case = replace(case, questions=tuple(case.questions[index] for index in picked))
        cases.append(case)
    golds = {question.id: question.answer for conversation in chosen for question in conversation.questions}

    def score(answer: str, question: TestQuestion) -> float:
        said = _ABSTAINS if exact(answer, UNKNOWN) else answer
        return locomo_f1(said, golds[question.id], question.category)

    config = {
        "data": data.name,
        "conversations": len(chosen),
        "questions_per_conversation": questions,
        "seed": seed,
        "score": "official LoCoMo metric",
        "abstention": f"the answer {UNKNOWN!r} is scored as {_ABSTAINS!r}, in every arm",
        "dropped_evidence": sum(conversation.dropped_evidence for conversation in chosen),
        "always_not_mentioned": round(
            sum(score(UNKNOWN, question) for case in cases for question in case.questions) / max(1, sum(len(case.questions) for case in cases)), 4
        ),
    }
    with _engine(model, memory) as engine:
        result = run("locomo", cases, names, score, engine=engine, config=config, console=console, keep_answers=keep_answers)
    print_table(result, Console())
    Console().print(f"always answering 'not mentioned' scores {config['always_not_mentioned']:.3f} on these questions", highlight=False)
    if out:
        write_json(result, out)


@app.command()
def table(results: Annotated[list[Path], typer.Argument(help="Result documents.", exists=True)]) -> None:
    """Print result documents as Markdown tables."""
    import json

    from lpm_integrations.bench.runner import markdown

    for path in results:
        typer.echo(markdown(json.loads(path.read_text("utf-8"))) + "\n")
