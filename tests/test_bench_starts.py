"""Training from a cold start beside training from new weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lpm_core.backbone import Backbone
from lpm_core.training import memory
from lpm_integrations.bench.cli import app
from lpm_integrations.bench.starts import measure_starts, smoothed, steps_to_match


def test_steps_are_counted_until_the_smoothed_loss_is_as_low_as_the_others_last() -> None:
    assert smoothed([4.0, 2.0, 3.0]) == [4.0, 2.0, 3.0]
    assert smoothed([float(value) for value in range(20)])[-1] == 18.5
    assert steps_to_match([3.0, 2.0, 1.0], [5.0, 4.0, 2.0]) == 2
    assert steps_to_match([3.0, 2.0], [2.0, 1.0]) is None


def test_the_command_writes_the_losses_of_both_starts(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "starts.json"
    result = CliRunner().invoke(app, ["starts", "--steps", "2", "--model", str(tiny_folder), "--json", str(out)])

    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert {name: len(curve["loss"]) for name, curve in document["curves"].items()} == {"cold": 2, "random": 2}
    assert document["steps"] == 2


def test_both_starts_learn_from_the_same_batches(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    made = memory._made

    def noted(*arguments: Any) -> Any:
        batches = made(*arguments)
        seen.append([question.text for batch in batches if batch for question in batch.questions])
        return batches

    monkeypatch.setattr(memory, "_made", noted)
    figures = measure_starts(Backbone.load(tiny_folder), 2, 0, Console(quiet=True))

    assert seen[:2] == seen[2:]
    assert len(seen) == 4
    assert figures["curves"]["cold"]["loss"] != figures["curves"]["random"]["loss"]
