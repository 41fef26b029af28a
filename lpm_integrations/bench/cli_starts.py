"""`lpm bench starts`: training from a cold start beside training from new weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lpm_integrations.bench.cli_run import Model, Out

__all__ = ["starts"]


def starts(
    steps: Annotated[int, typer.Option(help="Steps from each start, with the same batches.", min=1)] = 150,
    model: Model = None,
    dialogues: Annotated[list[Path] | None, typer.Option(help="Human dialogues (JSON lines) to mix in.", exists=True)] = None,
    seed: int = 0,
    out: Out = None,
) -> None:
    """Train memory weights from a cold start and from new weights: after how many steps does the first reach the loss of the other?"""
    from lpm_core.backbone import Backbone
    from lpm_core.engine import embedded_folder
    from lpm_core.training.dialogues import read_dialogues
    from lpm_core.training.embedded import environment
    from lpm_integrations.bench.files import write_json
    from lpm_integrations.bench.progress import narrow_table
    from lpm_integrations.bench.starts import measure_starts, smoothed

    backbone = Backbone.load(model or embedded_folder() / "backbone")
    figures = measure_starts(backbone, steps, seed, Console(stderr=True), read_dialogues(dialogues or []))
    shown = narrow_table(f"starts: {steps} steps each", ("start", "first loss", "last loss", "last right"))
    for name, curve in figures["curves"].items():
        shown.add_row(name, f"{curve['loss'][0]:.3f}", f"{smoothed(curve['loss'])[-1]:.3f}", f"{smoothed(curve['right'])[-1]:.3f}")
    console = Console()
    console.print(shown)
    matched = figures["steps_to_match"]
    console.print(f"from the cold start the loss of the other is reached after {matched} steps" if matched else "the cold start never reaches the other's loss")
    if out:
        config = {"seed": seed, "backbone": {"name": Path(backbone.name).name, "fingerprint": backbone.fingerprint}}
        write_json({"benchmark": "starts", "config": config, **figures, "environment": environment()}, out)
