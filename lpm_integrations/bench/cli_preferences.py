"""`lpm bench preferences`: the best of four replies to a request that does not name the fact that matters."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from lpm_integrations.bench.cli_run import Arms, Facts, Jobs, KeepAnswers, Memory, Model, Out, People, Resume, Split, run_arms

__all__ = ["preferences"]


def preferences(
    arms: Arms = "none,shuffled,full,rag,lpm",
    people: People = 200,
    facts: Facts = 8,
    questions: Annotated[int, typer.Option(help="Requests of each of them, or as many as the facts allow.")] = 3,
    split: Split = "test",
    seed: int = 0,
    keep_answers: KeepAnswers = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """Held-out people who ask for something without naming the fact that matters: which of four replies is likeliest? As PersonaMem, by likelihood."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import preference_cases
    from lpm_integrations.bench.datasets.personamem import longest_option

    names = arm_names(arms)
    cases = list(preference_cases(people, seed, facts, questions, split))
    asked = [question for case in cases for question in case.questions]
    longest = round(sum(longest_option(question.options) == question.gold for question in asked) / max(1, len(asked)), 4)
    config = {"people": len(cases), "facts": facts, "questions": questions, "seed": seed, "split": split, "score": "share of right choices"}
    options = {"resume": resume, "jobs": jobs, "model": model, "memory": memory, "answerer": None, "judge": None, "keep_answers": keep_answers}
    run_arms(
        "preferences",
        cases,
        names,
        lambda answer, question: float(answer == question.gold),
        {**config, "longest_option": longest},
        out,
        choose=True,
        **options,
    )
    Console().print(f"always choosing the longest reply scores {longest:.3f}", highlight=False)
