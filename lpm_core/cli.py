"""The `lpm` command. Other packages add sub-commands through the entry-point group `lpm.commands`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lpm_core.exceptions import InvalidInputError, LPMError, MissingDependencyError

if TYPE_CHECKING:
    from lpm_core.consolidation import ConsolidationReport
    from lpm_core.engine import ForgetReceipt
    from lpm_core.storage.rekey import Rekeyed
    from lpm_core.training.memory import MemoryRecipe

__all__ = ["app", "main"]

app = typer.Typer(name="lpm", help="Latent personal memory around a frozen local Qwen3.", no_args_is_help=True, pretty_exceptions_enable=False)
train = typer.Typer(help="Train the embedded default, or memory weights for a Qwen3.", no_args_is_help=True)
app.add_typer(train, name="train")

Store = Annotated[str | None, typer.Option(help="SQLAlchemy URL of the store. Default: LPM_STORE, else SQLite in the user's data folder.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub name of a Qwen3. Default: LPM_MODEL, else the embedded default.")]
Memory = Annotated[str | None, typer.Option(help="Folder of the model's memory weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Workers = Annotated[int, typer.Option(help="Processes that make batches ahead: on a GPU, some ten.", min=0)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Session = Annotated[str, typer.Option(help="Session the turns belong to.")]


@app.command()
def remember(
    user: str,
    texts: list[str],
    session: Session = "default",
    at: Annotated[str | None, typer.Option(help="When it was said, in ISO 8601; without a zone: UTC. Default: now.")] = None,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Add what USER said to their memory, one turn per TEXT."""
    from lpm_core.engine import LPM

    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        ids = lpm.remember(user, [{"role": "user", "content": text} for text in texts], session_id=session, at=at)
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
    from lpm_core.store import MemoryStore

    with MemoryStore(_store_url(store)) as opened:
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
    from lpm_core.store import MemoryStore

    with MemoryStore(_store_url(store)) as opened:
        names = opened.users()
    if as_json:
        Console().print_json(json.dumps(names))
    else:
        Console().print("\n".join(names) or "nobody yet", markup=False, highlight=False)


@app.command()
def stats(user: Annotated[str | None, typer.Argument(help="Only this user; else the whole store.")] = None, store: Store = None, as_json: Json = False) -> None:
    """Count what the store keeps, of USER or of all: turns, pages, slots, bytes and times. No content, and of all no names."""
    from lpm_core.stats import store_stats
    from lpm_core.store import MemoryStore

    with MemoryStore(_store_url(store)) as opened:
        figures = store_stats(opened, user)
    if as_json:
        Console().print_json(json.dumps(vars(figures), default=datetime.isoformat))
        return
    table = Table("what", "how much")
    for name, value in vars(figures).items():
        if isinstance(value, datetime):
            value = f"{value:%Y-%m-%d %H:%M} ({(datetime.now(UTC) - value).days} days ago)"
        elif name == "turns":
            value = ", ".join([str(sum(value.values())), *(f"{count} of source {source}" for source, count in value.items())])
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        table.add_row(name.replace("_", " "), "none" if value is None else str(value))
    Console().print(table)


@app.command()
def quarantine(
    user: str,
    release: Annotated[bool, typer.Option("--release", help="Write these pages anew; those out of bounds again stay.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Forget the turns behind these pages, for good.")] = False,
    yes: Yes = False,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """List pages of USER that are withheld from every answer, and why; `lpm forget USER --turn ID` drops single turns."""
    from lpm_core.engine import LPM
    from lpm_core.store import MemoryStore

    if release and drop:
        raise InvalidInputError("choose one of --release and --drop")
    with MemoryStore(_store_url(store)) as opened:
        rows = opened.quarantine(user)
    if drop and rows:
        _confirm(f"Forget the turns behind {len(rows)} pages of {user!r} for good?", yes)
    if rows and (release or drop):
        with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
            if drop:
                lpm.forget(user, turn_ids=[turn for row in rows for turn in row.turn_ids])
            rows = lpm.quarantine(user) if drop else lpm.release(user)
    if as_json:
        Console().print_json(json.dumps([vars(row) for row in rows]))
        return
    table = Table("session", "turns", "reason")
    for row in rows:
        table.add_row(Text(row.session_id), "\n".join(row.turn_ids), Text(row.reason))
    Console().print(table if rows else "nothing is in quarantine")


@app.command()
def explain(user: str, question: str, store: Store = None) -> None:
    """Show what memory makes of QUESTION: what the soft tokens say, and the turns behind them."""
    from lpm_core.engine import LPM

    with LPM.from_pretrained(store=store) as lpm:
        Console().print(str(lpm.explain(user, question)), markup=False, highlight=False)


@app.command()
def consolidate(
    user: Annotated[str | None, typer.Argument(help="Whose slots; or --all.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users, 16 side by side.")] = False,
    steps: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    again: Annotated[bool, typer.Option("--again", help="With --all, also who has only refined slots already.")] = False,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Refine slots until they answer as the history in context would. What is interrupted leaves the old slots in use; --all goes on with who is left."""
    from rich.progress import Progress

    from lpm_core.consolidation import ConsolidationRecipe
    from lpm_core.engine import LPM

    _one_or_all(user, everybody)
    recipe = ConsolidationRecipe() if steps is None else ConsolidationRecipe(steps=steps)
    with LPM.from_pretrained(model, memory=memory, store=store) as lpm, Progress(console=Console(stderr=True)) as progress:
        names = [user] if user is not None else [name for name in lpm.users() if again or not lpm.refined(name)]
        groups = [names[start : start + 16] for start in range(0, len(names), 16)]
        task = progress.add_task("consolidating", total=recipe.steps * len(groups))
        reports = []
        for number, group in enumerate(groups):
            reports += lpm.consolidate_many(group, recipe, on_step=lambda step, done=number * recipe.steps: progress.update(task, completed=done + step))  # type: ignore[misc]
    _refined(reports, as_json)


@app.command()
def fit(
    user: str,
    examples: Annotated[Path, typer.Argument(help='JSON lines: {"question": …, "answer": …}.', exists=True, dir_okay=False)],
    steps: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Refine the slots of USER on questions with the answers they should have. Some are held out: slots that do worse on them are not used."""
    from rich.progress import Progress

    from lpm_core.consolidation import ConsolidationRecipe
    from lpm_core.engine import LPM

    try:
        rows = [json.loads(line) for line in examples.read_text("utf-8").splitlines() if line.strip()]
        pairs = [(row["question"], row["answer"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f'cannot read {examples} ({type(error).__name__}: {error}); a line is {{"question": "Where do I live?", "answer": "Oslo"}}'
        ) from error
    recipe = ConsolidationRecipe() if steps is None else ConsolidationRecipe(steps=steps)
    with LPM.from_pretrained(model, memory=memory, store=store) as lpm, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("fitting", total=recipe.steps)
        report = lpm.fit(user, pairs, recipe, on_step=lambda step: progress.update(task, completed=step))
    _refined([report], as_json)


def _refined(reports: Sequence[ConsolidationReport], as_json: bool) -> None:
    """Print what refining did to each user."""
    if as_json:
        Console().print_json(json.dumps([vars(report) for report in reports]))
        return
    table = Table("user", "questions", "right before", "right after", "in use", "seconds")
    for report in reports:
        figures = (
            str(report.questions),
            f"{report.before:.2f}",
            f"{report.after:.2f}",
            "new slots" if report.promoted else "old slots",
            f"{report.seconds:.1f}",
        )
        table.add_row(report.user_id, *figures)
    Console().print(table)


@app.command()
def rebuild(
    user: Annotated[str | None, typer.Argument(help="Whose pages; or --all.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users.")] = False,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """Write pages anew that another backbone or other memory weights made. What is interrupted goes on from there."""
    from rich.progress import Progress

    from lpm_core.engine import LPM

    _one_or_all(user, everybody)
    with LPM.from_pretrained(model, memory=memory, store=store) as lpm, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("rebuilding users", total=None)
        written = lpm.rebuild(user, on_progress=lambda done, total: progress.update(task, completed=done, total=total))
    Console().print(f"wrote {written} pages", highlight=False)


@app.command()
def forget(
    user: str,
    turn: Annotated[list[str] | None, typer.Option(help="Id of a turn (`lpm turns USER --json`); may be given several times.")] = None,
    session: Annotated[str | None, typer.Option(help="Forget this session.")] = None,
    before: Annotated[str | None, typer.Option(help="Forget what was said before this ISO 8601 time.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget the user.")] = False,
    yes: Yes = False,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Delete turns of USER for good: by --turn, --session or --before, or --all of them."""
    from lpm_core.engine import LPM

    if [turn, session, before, everything or None].count(None) != 3:
        raise InvalidInputError("say what to forget by exactly one of --turn, --session, --before and --all")
    _confirm(f"Forget {'everything' if everything else 'these turns'} of {user!r} for good?", yes)
    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        receipt = lpm.forget_user(user) if everything else lpm.forget(user, turn_ids=turn, session_id=session, before=before)
    _show_receipts([receipt], as_json)


@app.command()
def expire(
    ttl: Annotated[str, typer.Option(help="Age such as 30d, 12h or 90m.")],
    user: Annotated[str | None, typer.Argument(help="Only this user; else all.")] = None,
    yes: Yes = False,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Delete what was said longer than TTL ago, for good."""
    from lpm_core.engine import LPM
    from lpm_core.validation import parse_age

    age = parse_age(ttl)
    _confirm(f"Forget what {'anybody' if user is None else repr(user)} said more than {ttl} ago, for good?", yes)
    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        receipts = lpm.expire(user, ttl=age)
    _show_receipts(receipts, as_json)


@app.command()
def export(user: str, path: Path, store: Store = None, model: Model = None, memory: Memory = None) -> None:
    """Write all turns and pages of USER to the file PATH."""
    from lpm_core.engine import LPM

    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        lpm.export(user, path)
    Console().print(f"{user!r} is in {path}", highlight=False, markup=False)


@app.command()
def restore(path: Path, store: Store = None, model: Model = None, memory: Memory = None, as_json: Json = False) -> None:
    """Add the turns of an exported file that the store does not have."""
    from lpm_core.engine import LPM

    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        receipt = lpm.restore(path)
    if as_json:
        Console().print_json(json.dumps(vars(receipt)))
    else:
        Console().print(f"restored {receipt.turns} turns of {receipt.user_id!r}; {receipt.present} were there", highlight=False, markup=False)


@app.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be derived from the turn log.")] = False,
    drop_damaged: Annotated[bool, typer.Option("--drop-damaged", help="Also delete damaged turns, so that the rest is served again.")] = False,
    yes: Yes = False,
    store: Store = None,
    model: Model = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Check every row of the store. Exit code 2 if something is wrong and stays so."""
    from lpm_core.engine import LPM

    if drop_damaged:
        _confirm("Delete the turns that are damaged, for good?", yes)
    with LPM.from_pretrained(model, memory=memory, store=store) as lpm:
        report = lpm.doctor(repair=repair, drop_damaged=drop_damaged)
    console = Console()
    if as_json:
        console.print_json(json.dumps({**vars(report), "sound": report.sound, "findings": [vars(finding) for finding in report.findings]}))
    else:
        if report.findings:
            table = Table("what", "key", "problem", "remedy", "repaired")
            for finding in report.findings:
                table.add_row(finding.kind, ", ".join(map(str, finding.key)), finding.problem, finding.remedy, "yes" if finding.repaired else "no")
            console.print(table)
        state = "sound" if report.sound else "not sound"
        console.print(f"{report.users} users, {report.turns} turns, {report.pages} pages: {state}", highlight=False)
    if not report.sound:
        raise typer.Exit(2)


@app.command()
def encrypt(store: Store = None) -> None:
    """Encrypt a store in place, under LPM_MASTER_KEY. All or nothing; afterwards no plain text is left in its files."""
    from rich.progress import Progress

    from lpm_core.storage.rekey import encrypt_store

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("encrypting turns", total=None)
        done = encrypt_store(_store_url(store), _master_key(), lambda count, total: progress.update(task, completed=count, total=total))
    _show_rekeyed(done, "encrypted the data", "nothing was left to encrypt")


@app.command("rotate-key")
def rotate_key(store: Store = None) -> None:
    """Put the keys of an encrypted store under LPM_NEW_MASTER_KEY instead of LPM_MASTER_KEY. All or nothing."""
    from lpm_core.storage.rekey import rotate_key as rotate

    new = os.environ.get("LPM_NEW_MASTER_KEY")
    if new is None:
        raise InvalidInputError("set LPM_NEW_MASTER_KEY to the key that is to come; `lpm new-key` makes one")
    _show_rekeyed(rotate(_store_url(store), _master_key(), new), "changed the keys", "nothing was left to change")
    Console().print("set LPM_MASTER_KEY to the new key from now on")


@app.command("new-key")
def new_key() -> None:
    """Print a random key for LPM_MASTER_KEY. Keep it apart from the store: who loses it loses the memory."""
    from lpm_core.storage.encryption import new_master_key

    typer.echo(new_master_key())


def _one_or_all(user: str | None, everybody: bool) -> None:
    if (user is None) == (not everybody):
        raise InvalidInputError("name one user, or pass --all")


def _store_url(store: str | None) -> str:
    from lpm_core.settings import LPMSettings

    return store or LPMSettings().store_url


def _master_key() -> str:
    from lpm_core.settings import LPMSettings

    key = LPMSettings().master_key
    if key is None:
        raise InvalidInputError("set LPM_MASTER_KEY to the key of the store; `lpm new-key` makes one")
    return key.get_secret_value()


def _show_rekeyed(done: Rekeyed, what: str, nothing: str) -> None:
    rest = "" if done.vacuumed else "; the file is in use, and is cleaned when it is next opened"
    Console().print(f"{what} of {done.users} users{rest}" if done.users else f"{nothing}{rest}", highlight=False)


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)


def _show_receipts(receipts: Sequence[ForgetReceipt], as_json: bool) -> None:
    if as_json:
        Console().print_json(json.dumps([vars(receipt) for receipt in receipts]))
        return
    for receipt in receipts:
        rest = "" if receipt.vacuumed else "; the file is in use, and is cleaned when it is next opened"
        Console().print(f"forgot {receipt.turns} turns and {receipt.sessions} sessions of {receipt.user_id!r}{rest}", highlight=False, markup=False)
    if not receipts:
        Console().print("nothing to forget")


@train.command("embedded")
def train_embedded(
    output: Annotated[Path, typer.Option(help="Where the shipped weights go.")] = Path("lpm_core/pretrained"),
    work: Annotated[Path, typer.Option(help="Checkpoints; training continues from them.")] = Path("runs/embedded"),
    dialogues: Annotated[list[Path] | None, typer.Option(help="Human dialogues (JSON lines) to mix in.", exists=True)] = None,
    start: Annotated[
        Path | None, typer.Option(help="Go on from the weights in this folder, half-way through the recipe.", exists=True, file_okay=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    workers: Workers = 0,
    seed: int = 0,
) -> None:
    """Make the embedded default: corpus, tokenizer, backbone, memory weights. Some four hours on two cores."""
    from lpm_core.training.embedded import train_embedded as run

    run(output, work, dialogues or [], device, seed, start, workers)


@train.command("memory")
def train_memory(
    backbone: Annotated[str, typer.Option(help="Folder or hub name of a Qwen3.")],
    output: Annotated[Path, typer.Option(help="Where the memory weights go; training continues from checkpoints there.")] = Path("runs/memory"),
    conversations: Annotated[
        list[Path] | None, typer.Option(help='Your own, as JSON lines {"messages": [{"role", "content"}, …]}: half of what is learned from.', exists=True)
    ] = None,
    dialogues: Annotated[list[Path] | None, typer.Option(help="Human dialogues (JSON lines) to mix in.", exists=True)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    dtype: str = "float32",
    workers: Workers = 0,
    heads: Annotated[int, typer.Option(help="H, soft tokens per question.")] = 64,
    slot_size: Annotated[int, typer.Option(help="d_mem, numbers per slot and head; 64 of them are an address.")] = 160,
    steps: Annotated[int, typer.Option(help="Steps through the backbone, after those of the attention alone.")] = 2400,
    retrieval_steps: Annotated[int, typer.Option(help="Steps of the attention alone.")] = 400,
    users_per_step: int = 24,
    accumulate: Annotated[int, typer.Option(help="Batches behind each step.", min=1)] = 1,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Recompute the backbone's activations: less memory, a third more time.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell parameters, memory, operations a step and hours; nothing is loaded.")] = False,
    gpu: Annotated[str, typer.Option(help="The GPU that --dry-run reckons with: h200, h100, a100, l40s, rtx4090, rtx3090.")] = "h200",
    as_json: Json = False,
    cold: Annotated[bool, typer.Option("--cold", help="Start from the weights of a cold start, which retrieve untrained; their slots are wider.")] = False,
    seed: int = 0,
) -> None:
    """Train memory weights for a Qwen3 on the synthetic corpus and your own conversations. Pass OUTPUT/memory as `memory` afterwards.

    In several processes: `torchrun --nproc_per_node 2 -m lpm_core train memory …`.
    """
    from lpm_core.training.memory import MemoryRecipe

    recipe = MemoryRecipe(
        heads=heads,
        slot_size=slot_size,
        steps=steps,
        retrieval_steps=retrieval_steps,
        users=users_per_step,
        accumulate=accumulate,
        checkpointing=checkpointing,
        seed=seed,
    )
    if dry_run:
        _plan(backbone, recipe, gpu, as_json)
        return
    from lpm_core.backbone import Backbone
    from lpm_core.cold import LEAST_IN_TRAINING, cold_recipe, cold_weights
    from lpm_core.training.dialogues import read_dialogues
    from lpm_core.training.embedded import pick_device
    from lpm_core.training.memory import train_memory as run
    from lpm_core.training.progress import Report

    wanted = pick_device(device)
    accelerator = _accelerator(cpu=wanted == "cpu") if "WORLD_SIZE" in os.environ else None
    loaded = Backbone.load(backbone, device=str(accelerator.device) if accelerator else wanted, dtype=dtype)
    output.mkdir(parents=True, exist_ok=True)
    report = Report(Console(stderr=True, quiet=accelerator is not None and not accelerator.is_main_process))
    start = cold_weights(loaded, heads=heads, least=LEAST_IN_TRAINING) if cold else None
    run(
        cold_recipe(recipe) if cold else recipe,
        loaded,
        read_dialogues(dialogues or []),
        output,
        report,
        start,
        read_dialogues(conversations or []),
        accelerator,
        workers,
    )
    report.say(f"memory weights are in {output / 'memory'}")


def _accelerator(*, cpu: bool) -> Any:
    """This process among those that `torchrun` or `accelerate launch` started."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingDependencyError('accelerate is not installed: pip install "latent-personal-memory[train]"') from error
    return Accelerator(cpu=cpu)


def _plan(backbone: str, recipe: MemoryRecipe, gpu: str, as_json: bool) -> None:
    """Print what training will take."""
    from lpm_core.training.plan import training_plan

    plan = training_plan(backbone, recipe, gpu=gpu.lower(), checkpointing=recipe.checkpointing)
    if as_json:
        Console().print_json(json.dumps(vars(plan)))
        return
    table = Table(title=f"training memory weights for {plan.backbone}", show_header=False, title_justify="left")
    for name, value in (
        ("backbone, frozen", f"{plan.backbone_parameters:,} parameters"),
        ("trained, shared by all users", f"{plan.shared_parameters:,} parameters"),
        ("a slot, all heads", f"{plan.slot_numbers:,} numbers"),
        (
            "a user with 32 slots",
            f"{plan.user_numbers:,} numbers; a LoRA of rank 16 has {plan.lora_numbers:,}, {plan.lora_numbers / plan.user_numbers:.0f} times as many",
        ),
        ("a step", f"{plan.step_tokens:,} tokens, {plan.step_flops:.3g} floating-point operations"),
        (
            "memory",
            f"{plan.memory_bytes / 1e9:.1f} GB"
            + ("" if plan.fits else f": more than a {plan.gpu} has; try --checkpointing, fewer --users-per-step and more --accumulate"),
        ),
        (f"{plan.steps:,} steps on one {plan.gpu}", f"{plan.hours:.2g} hours at 35 % of its stated speed"),
    ):
        table.add_row(name, value)
    Console().print(table)


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
