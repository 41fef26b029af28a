"""`lpm bench agents`: tool calls that need a remembered fact."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from lpm_integrations.bench.cli_run import Facts, Memory, Model, Out, Split

__all__ = ["agents"]


def agents(
    people: Annotated[int, typer.Option(help="Unseen users, one request each.", min=2)] = 50,
    facts: Facts = 8,
    split: Split = "test",
    seed: int = 0,
    out: Out = None,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """A tool-calling agent whose tool needs what the user told: is the remembered value in the call, and the result in the answer?"""
    from lpm_core.engine import LPM
    from lpm_core.training.embedded import environment
    from lpm_integrations.bench.agents import agent_requests, measure_agents
    from lpm_integrations.bench.files import write_json
    from lpm_integrations.bench.progress import Bar, narrow_table

    trials = list(agent_requests(people, seed, facts=facts, split=split))
    with LPM.from_pretrained(model, memory=memory, store="sqlite://") as engine, Bar("agents", Console(stderr=True)) as bar:
        bar.start(len(trials))
        figures = measure_agents(engine, trials, on_trial=bar.advance)
    shown = narrow_table(f"agents: {len(trials)} requests", ("arm", "tool called", "value in the call", "result in the answer"))
    for arm, row in figures["readers"].items():
        shown.add_row(arm, *(f"{row[name]:.2f}" for name in ("called", "filled", "answered")))
    Console().print(shown)
    if out:
        config = {"people": len(trials), "facts": facts, "split": split, "seed": seed, "score": "the value, whatever case, as the tool's argument"}
        write_json({"benchmark": "agents", "config": config, **figures, "environment": environment()}, out)
