"""`lpm plot`: figures of what was measured, and of what is in a memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lpm_core.exceptions import DatasetError, InvalidInputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lpm_core.engine import LPM

__all__ = ["app"]

app = typer.Typer(help="Draw figures (PNG).", no_args_is_help=True)

Png = Annotated[Path | None, typer.Option(help="Where the figure goes. Default: the figure's name in this folder.")]
Store = Annotated[str | None, typer.Option(help="SQLAlchemy URL of a store. Default: people made up for the figure.")]
People = Annotated[int, typer.Option(help="Made-up people, where no store is named.", min=1)]
Model = Annotated[str | None, typer.Option(help="Folder or hub name of a Qwen3. Default: the embedded one.")]
Memory = Annotated[str | None, typer.Option(help="Folder of the model's memory weights.")]


@app.command()
def scaling(document: Annotated[Path, typer.Argument(help="What `lpm bench scaling --json` wrote.")] = Path("results/scaling.json"), png: Png = None) -> None:
    """Accuracy and cost against the length of the history."""
    _draw("scaling", document, png)


@app.command()
def ablation(
    document: Annotated[Path, typer.Argument(help="What `lpm bench probes --arms lpm,lpm@8,… --json` wrote.")] = Path("results/ablation.json"),
    png: Png = None,
) -> None:
    """What answers owe to each part of LPM: heads, slots, the question, the place of the soft tokens."""
    _draw("ablation", document, png)


@app.command()
def training(
    document: Annotated[Path, typer.Argument(help="What `lpm bench probes --arms full,lora@1e-3x30,… --json` wrote.")] = Path("results/training.json"),
    png: Png = None,
) -> None:
    """Answers right against steps and seconds of what is trained for a user."""
    _draw("training", document, png)


@app.command()
def starts(document: Annotated[Path, typer.Argument(help="What `lpm bench starts --json` wrote.")] = Path("results/starts.json"), png: Png = None) -> None:
    """Loss of training memory weights from a cold start and from new ones."""
    _draw("starts", document, png)


@app.command()
def slots(
    users: Annotated[list[str] | None, typer.Argument(help="Users of the store. Default: its first twelve.")] = None,
    store: Store = None,
    people: People = 12,
    png: Png = None,
    seed: int = 0,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """UMAP of the slots of several users."""
    from lpm_integrations.bench.figures import slots as draw

    with _filled(store, people, seed, model, memory) as lpm:
        _save(draw(lpm, users or lpm.users()[:12], seed), png or Path("slots.png"))


@app.command()
def attention(
    question: Annotated[str | None, typer.Argument(help="What to ask. Of somebody made up, the default is something that they told.")] = None,
    user: Annotated[str | None, typer.Option(help="Whose memory. Default: the first user.")] = None,
    store: Store = None,
    png: Png = None,
    seed: int = 0,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """Attention of one question on a user's slots, with the turns behind them."""
    from lpm_integrations.bench.cases import ANSWERABLE, probe_cases
    from lpm_integrations.bench.figures import attention as draw

    if question is None:
        if store:
            raise InvalidInputError('no question was named: lpm plot attention "Where do I live?" --store …')
        question = next(asked.text for case in probe_cases(1, seed) for asked in case.questions if asked.category == ANSWERABLE)
    with _filled(store, 1, seed, model, memory) as lpm:
        named = [user] if user else lpm.users()[:1]
        if not named:
            raise DatasetError(f"the store {store!r} has no users; remember something first, or leave --store out for made-up people")
        _save(draw(lpm, named[0], question), png or Path("attention.png"))


@contextmanager
def _filled(store: str | None, people: int, seed: int, model: str | None, memory: str | None) -> Iterator[LPM]:
    """An engine on a store or, if none is named, on one of made-up people."""
    from lpm_core.engine import LPM
    from lpm_integrations.bench.cases import probe_cases, tell

    with LPM.from_pretrained(model, memory=memory, store=store or "sqlite://") as lpm:
        for case in () if store else probe_cases(people, seed):
            tell(lpm, case.user_id, case.turns)
        yield lpm


def _draw(kind: str, document: Path, png: Path | None) -> None:
    """Draw a result document as the figure of that name."""
    from lpm_integrations.bench import figures
    from lpm_integrations.bench.files import read_json

    _save(getattr(figures, kind)(read_json(document)), png or Path(f"{kind}.png"))


def _save(figure: Figure, path: Path) -> None:
    """Write a figure. Raises DatasetError if the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise DatasetError(f"cannot write {path} ({error.strerror or error}): name another place with --png") from error
    Console().print(f"wrote {path}", highlight=False, markup=False)
