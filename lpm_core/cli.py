"""The `lpm` command. Other packages add sub-commands through the entry-point group `lpm.commands`."""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lpm_core.exceptions import LPMError

__all__ = ["app", "main"]

app = typer.Typer(name="lpm", help="Latent personal memory around a frozen local Qwen3.", no_args_is_help=True, pretty_exceptions_enable=False)
train = typer.Typer(help="Train the embedded default, or memory weights for a Qwen3.", no_args_is_help=True)
app.add_typer(train, name="train")

Store = Annotated[str | None, typer.Option(help="SQLAlchemy URL of the store. Default: LPM_STORE, else SQLite in the user's data folder.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub name of a Qwen3. Default: LPM_MODEL, else the embedded default.")]
Memory = Annotated[str | None, typer.Option(help="Folder of the model's memory weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Session = Annotated[str, typer.Option(help="Session the turns belong to.")]


@app.command()
def remember(
    user: str, texts: list[str], session: Session = "default", store: Store = None, model: Model = None, memory: Memory = None, as_json: Json = False
) -> None:
    """Add what USER said to their memory, one turn per TEXT."""
    from lpm_core.engine import LPM

    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        ids = lpm.remember(user, [{"role": "user", "content": text} for text in texts], session_id=session)
    Console().print_json(json.dumps(ids)) if as_json else Console().print(f"remembered {len(ids)} turns of {user!r}", highlight=False)


@app.command()
def ask(user: str, question: str, store: Store = None, model: Model = None, memory: Memory = None, max_new_tokens: int = 64, as_json: Json = False) -> None:
    """Answer QUESTION from the memory of USER. No history text enters the prompt."""
    from lpm_core.engine import LPM

    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        answer = lpm.ask(user, question, max_new_tokens=max_new_tokens)
    if as_json:
        evidence = [{"turn": item.turn.id, "content": item.turn.content, "weight": item.weight} for item in answer.evidence]
        Console().print_json(json.dumps({"text": answer.text, "evidence": evidence, "usage": vars(answer.usage)}))
        return
    console = Console(highlight=False)
    console.print(answer.text, markup=False)
    for item in answer.evidence[:1]:
        console.print(f"  from: {item.turn.content!r} ({item.weight:.0%} of attention)", style="dim", markup=False)


@app.command()
def turns(user: str, store: Store = None, as_json: Json = False) -> None:
    """List what the log keeps of USER."""
    from lpm_core.settings import LPMSettings
    from lpm_core.store import MemoryStore

    with MemoryStore(store or LPMSettings().store_url) as opened:
        rows = opened.turns(user)
    if as_json:
        Console().print_json(json.dumps([{**vars(turn), "at": turn.at.isoformat()} for turn in rows]))
        return
    table = Table("when", "session", "role", "content")
    for turn in rows:
        table.add_row(turn.at.strftime("%Y-%m-%d %H:%M"), turn.session_id, turn.role, turn.content)
    Console().print(table)


@app.command()
def users(store: Store = None, as_json: Json = False) -> None:
    """List the users of the store."""
    from lpm_core.settings import LPMSettings
    from lpm_core.store import MemoryStore

    with MemoryStore(store or LPMSettings().store_url) as opened:
        names = opened.users()
    if as_json:
        Console().print_json(json.dumps(names))
    else:
        Console().print("\n".join(names) or "nobody yet", markup=False, highlight=False)


@app.command()
def explain(user: str, question: str, store: Store = None) -> None:
    """Show what memory makes of QUESTION: what the soft tokens say, and the turns behind them."""
    from lpm_core.engine import LPM

    with LPM.from_pretrained(store=store) as lpm:
        Console().print(str(lpm.explain(user, question)), markup=False, highlight=False)


@train.command("embedded")
def train_embedded(
    output: Annotated[Path, typer.Option(help="Where the shipped weights go.")] = Path("lpm_core/pretrained"),
    work: Annotated[Path, typer.Option(help="Checkpoints; training continues from them.")] = Path("runs/embedded"),
    dialogues: Annotated[list[Path] | None, typer.Option(help="Human dialogues (JSON lines) to mix in.", exists=True)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    seed: int = 0,
) -> None:
    """Make the embedded default: corpus, tokenizer, backbone, memory weights. One to two hours on two cores."""
    from lpm_core.training.embedded import train_embedded as run

    run(output, work, dialogues or [], device, seed)


@train.command("memory")
def train_memory(
    backbone: Annotated[str, typer.Option(help="Folder or hub name of a Qwen3.")],
    output: Annotated[Path, typer.Option(help="Where the memory weights go; training continues from checkpoints there.")],
    dialogues: Annotated[list[Path] | None, typer.Option(help="Human dialogues (JSON lines) to mix in.", exists=True)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    dtype: str = "float32",
    heads: Annotated[int, typer.Option(help="H, soft tokens per question.")] = 64,
    steps: int = 2400,
    users_per_step: int = 24,
    seed: int = 0,
) -> None:
    """Train memory weights for a Qwen3 on the synthetic corpus. Pass OUTPUT/memory as `memory` afterwards."""
    from lpm_core.backbone import Backbone
    from lpm_core.training.corpus import read_dialogues
    from lpm_core.training.embedded import pick_device
    from lpm_core.training.memory import MemoryRecipe
    from lpm_core.training.memory import train_memory as run
    from lpm_core.training.progress import Report

    loaded = Backbone.load(backbone, device=pick_device(device), dtype=dtype)
    output.mkdir(parents=True, exist_ok=True)
    report = Report()
    run(MemoryRecipe(heads=heads, steps=steps, users=users_per_step, seed=seed), loaded, read_dialogues(dialogues or []), output, report)
    report.say(f"memory weights are in {output / 'memory'}")


def main() -> None:
    """Entry point: typed errors become one line and exit code 1, Ctrl-C exit code 130."""
    for point in entry_points(group="lpm.commands"):
        app.add_typer(point.load(), name=point.name)
    try:
        app()
    except LPMError as error:
        Console(stderr=True).print(f"lpm: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; run the same command again to go on", markup=False)
        sys.exit(130)
