"""`lpm bench table`, `compare` and `report`: what is done with result documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lpm_core.exceptions import InvalidInputError

__all__ = ["compare", "report", "table"]

Results = Annotated[list[Path], typer.Argument(help="Result documents.")]


def table(
    results: Results,
    mean: Annotated[bool, typer.Option("--mean", help="One table of them all: mean and standard deviation over documents of different seeds.")] = False,
) -> None:
    """Print result documents as Markdown tables."""
    from lpm_integrations.bench.cost import tables
    from lpm_integrations.bench.report import read_result
    from lpm_integrations.bench.runner import markdown, mean_rows, rows

    if mean:
        typer.echo(markdown(mean_rows([read_result(path) for path in results])))
        return
    for path in results:
        document = read_result(path, any_kind=True)
        if document["benchmark"] == "mem0":
            raise InvalidInputError(f"{path} is the summary of a Mem0 run, which has no arms: `lpm bench report` shows it")
        if document["benchmark"] == "cost":
            for title, headings, lines in tables(document):
                typer.echo(f"**{title}**\n\n{markdown([headings, *lines])}\n")
        else:
            typer.echo(markdown(rows(document)) + "\n")


def compare(
    results: Annotated[list[Path], typer.Argument(help="A result document, or some of different seeds, whose questions are taken together.")],
    arms: Annotated[str, typer.Option(help="The two arms, with a comma between them: lpm,rag.")],
    nll: Annotated[bool, typer.Option("--nll", help="Compare how unlikely the gold answers were (lower wins), not the scores.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Two arms on the same questions: the mean difference with its 95 % paired bootstrap interval, and an exact sign test."""
    import json

    from lpm_integrations.bench.progress import narrow_table
    from lpm_integrations.bench.report import read_result
    from lpm_integrations.bench.runner import category_names
    from lpm_integrations.bench.significance import compare as compared
    from lpm_integrations.bench.significance import pooled

    names = [name.strip() for name in arms.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        raise InvalidInputError(f"--arms {arms!r}: name two different arms, as in lpm,rag")
    documents = [read_result(path) for path in results]
    document = documents[0] if len(documents) == 1 else pooled(documents)
    found = compared(document, *names, measure="gold_nlls" if nll else "scores")
    if as_json:
        typer.echo(json.dumps(found))
        return
    titles = category_names(document["benchmark"])
    title = f"{document['benchmark']}{', NLL of gold answers' if nll else ''}: {names[0]} - {names[1]}"
    shown = narrow_table(title, ("", "n", *names, "difference", "95 % interval", "won", "lost", "sign p"))
    for key, row in found.items():
        low, high = row["interval"]
        numbers = (f"{row['n']}", f"{row['first']:.3f}", f"{row['second']:.3f}", f"{row['difference']:+.3f}", f"{low:+.3f} {high:+.3f}")
        shown.add_row(titles.get(key, key), *numbers, f"{row['wins']}", f"{row['losses']}", f"{row['p']:.2g}")
    Console().print(shown)


def report(
    results: Results,
    html: Annotated[Path, typer.Option(help="Write the page here.")],
) -> None:
    """Write one page without outside parts: what was run, tables per category with intervals, comparisons, costs, plots."""
    from lpm_integrations.bench.report import page, read_result

    documents = [read_result(path, any_kind=True) for path in results]
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page(documents), "utf-8")
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(html)!r} ({error.strerror or error}): name another place") from error
    Console().print(f"the report is in {html}", markup=False, highlight=False)
