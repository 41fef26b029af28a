"""What the commands of `lpm bench` that compare arms share: their options, and running and writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lpm_core.exceptions import InvalidInputError

if TYPE_CHECKING:
    from lpm_integrations.bench.cases import Case
    from lpm_integrations.bench.runner import Score

__all__ = ["Arms", "ChatModel", "Facts", "Jobs", "JudgeModel", "KeepAnswers", "Memory", "Model", "Out", "People", "Resume", "Split", "open_engine", "run_arms"]

Arms = Annotated[
    str,
    typer.Option(
        help="Comma-separated: none, shuffled, full, rag, lpm, hybrid, lpm+consolidated, lora, prompt_tuning; rag@10 for 10 turns of text, lora@1e-3 for a learning rate. Parts of LPM: lpm@8 (soft tokens), lpm_slots@16, lpm_static, lpm_window, lpm_message."
    ),
]
People = Annotated[int, typer.Option(help="Unseen users.")]
Facts = Annotated[int, typer.Option(help="Facts each of them tells.")]
Split = Annotated[str, typer.Option(help="test, or validation: the people to choose settings on.")]
Out = Annotated[Path | None, typer.Option("--json", help="Write the result document here.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub name of a Qwen3. Default: the embedded one.")]
Memory = Annotated[str | None, typer.Option(help="Folder of the model's memory weights.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same --json and options.")]
Jobs = Annotated[int, typer.Option(help="Users who are asked side by side. The answers are the same; the times are those of a busy machine.")]
KeepAnswers = Annotated[bool, typer.Option(help="Keep answers, questions and evidence in the document, for examples in the report; mind the data's licence.")]
ChatModel = Annotated[str | None, typer.Option("--answerer", help="LangChain chat model that answers from text, as module:factory. Default: the backbone.")]
JudgeModel = Annotated[str | None, typer.Option("--judge", help="LangChain chat model that gives J, as module:factory. Default: J is absent.")]


def open_engine(model: str | None, memory: str | None) -> Any:
    """An engine on a store in memory."""
    from lpm_core.engine import LPM

    return LPM.from_pretrained(model, memory=memory, store="sqlite://")


def run_arms(benchmark: str, cases: Sequence[Case], arms: Sequence[str], score: Score, config: dict[str, Any], out: Path | None, **options: Any) -> None:
    """Run, print the tables, write the document. The answers so far are beside the document until it is written."""
    from lpm_integrations.bench.files import write_json
    from lpm_integrations.bench.models import ChatAnswerer, Judge
    from lpm_integrations.bench.runner import print_table, run

    model, memory, judge, answerer = (options.pop(name) for name in ("model", "memory", "judge", "answerer"))
    options |= {"answerer": ChatAnswerer(answerer) if answerer else None, "judge": Judge(ChatAnswerer(judge)) if judge else None}
    if options["resume"] and out is None:
        raise InvalidInputError("--resume needs --json: the answers so far are kept beside that file")
    partial = out.with_name(f"{out.name}.partial") if out else None
    with open_engine(model, memory) as engine:
        result = run(benchmark, cases, arms, score, engine=engine, config=config, console=Console(stderr=True), partial=partial, **options)
    print_table(result, Console())
    if options["judge"] is None and benchmark in ("locomo", "longmemeval", "own"):
        Console().print("J is absent: no judge was named", highlight=False)
    failed = sum(len(row.get("failures", ())) for row in result["arms"].values())
    if failed:
        Console(stderr=True).print(f"{failed} answers failed: they score 0, and stand under 'failures' in the document", style="yellow", highlight=False)
    if out and partial:
        write_json(result, out)
        partial.unlink(missing_ok=True)
