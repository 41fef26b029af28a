"""Where training of memory weights begins: from a cold start, which retrieves, or from new ones. Both learn from the same batches, each at the rate for it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.cold import LEAST_IN_TRAINING, cold_recipe, cold_weights
from lpm_core.training.dialogues import Message
from lpm_core.training.memory import MemoryRecipe, train_memory
from lpm_core.training.progress import Report

__all__ = ["measure_starts", "smoothed", "steps_to_match"]


class _Curve(Report):
    """Keeps every step's figures beside showing them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.kept: list[dict[str, float]] = []

    def value(self, **values: float) -> None:
        super().value(**values)
        self.kept.append(values)


def measure_starts(backbone: Backbone, steps: int, seed: int, console: Console, dialogues: Sequence[Sequence[Message]] = ()) -> dict[str, Any]:
    """Loss of answers (nats a token) and share right at each step from the starts "cold" and "random", and when the first has reached the last loss of the second."""
    recipe = MemoryRecipe(retrieval_steps=0, steps=steps, warmup=max(1, steps // 10), checkpoint_every=steps, probe_people=0, seed=seed)
    starts = {
        "cold": (cold_recipe(recipe), cold_weights(backbone, heads=recipe.heads, least=LEAST_IN_TRAINING)),
        "random": (recipe, MemoryWeights.new(backbone, seed=seed, **recipe.shape)),
    }
    curves: dict[str, dict[str, list[float]]] = {}
    for name, (own, weights) in starts.items():
        curve = _Curve(console)
        with tempfile.TemporaryDirectory(prefix="lpm-start-") as folder:
            train_memory(own, backbone, dialogues, Path(folder), curve, weights)
        curves[name] = {kind: [round(step[kind], 5) for step in curve.kept] for kind in ("loss", "right")}
    return {"curves": curves, "steps": steps, "steps_to_match": steps_to_match(curves["cold"]["loss"], curves["random"]["loss"])}


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean of the last tenth of all steps at each step, or of those there are."""
    window = max(1, len(values) // 10)
    return [sum(values[max(0, end - window) : end]) / min(window, end) for end in range(1, len(values) + 1)]


def steps_to_match(losses: Sequence[float], others: Sequence[float]) -> int | None:
    """After how many steps the smoothed losses are as low as the others' last; None: they never are."""
    aim = smoothed(others)[-1]
    return next((step for step, loss in enumerate(smoothed(losses), 1) if loss <= aim), None)
