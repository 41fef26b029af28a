"""Figures are drawn from documents and from memories, and say what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lpm_core import LPM
from lpm_core.exceptions import DatasetError, InvalidInputError
from lpm_integrations.bench import figures
from lpm_integrations.bench.cli import app as bench
from lpm_integrations.bench.cli_plot import app

_PNG = b"\x89PNG"


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def _told(lpm: LPM, users: int) -> None:
    for number in range(users):
        lpm.remember(
            f"user{number}", [{"role": "user", "content": f"I live in town {number} and my $5 dog is Rex {word}."} for word in ("one", "two", "three")]
        )


def test_scaling_is_measured_and_drawn(tiny_folder: Path, tmp_path: Path) -> None:
    document, png = tmp_path / "scaling.json", tmp_path / "new" / "scaling.png"
    options = ["--arms", "full,lpm", "--lengths", "64,512", "--people", "1", "--facts", "2", "--questions", "2", "--model", str(tiny_folder)]

    result = CliRunner().invoke(bench, ["scaling", *options, "--json", str(document)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads(document.read_text())["lengths"]
    assert list(rows) == ["64", "512"]
    tokens = [rows[length]["arms"]["full"]["cost"]["prompt_tokens"] for length in rows]
    assert max(tokens) <= 256  # the tiny model's window: the oldest turns fall out
    assert "tokens of history" in result.output
    assert all(row["tokens"] >= int(length) for length, row in rows.items())

    assert f"wrote {png}" in _run("scaling", str(document), "--png", str(png)).output.replace("\n", "")
    assert png.read_bytes().startswith(_PNG)


def test_ablation_is_measured_and_drawn(tiny_folder: Path, tmp_path: Path) -> None:
    document, png = tmp_path / "ablation.json", tmp_path / "ablation.png"
    arms = "lpm,lpm@2,lpm_slots@3,lpm_static,lpm_window,lpm_message"

    options = ["--arms", arms, "--people", "1", "--facts", "2", "--questions", "2", "--model", str(tiny_folder), "--json", str(document)]
    assert CliRunner().invoke(bench, ["probes", *options], catch_exceptions=False).exit_code == 0
    costs = {name: row["cost"] for name, row in json.loads(document.read_text())["arms"].items()}
    assert {name: cost["soft_tokens"] for name, cost in costs.items()} == {name: 2 if name == "lpm@2" else 4 for name in costs}
    assert costs["lpm_message"]["prompt_tokens"] == costs["lpm_window"]["prompt_tokens"] > costs["lpm"]["prompt_tokens"]

    _run("ablation", str(document), "--png", str(png))
    assert png.read_bytes().startswith(_PNG)


def test_training_for_a_user_is_drawn_against_steps_and_seconds(tiny_folder: Path, tmp_path: Path) -> None:
    document, png = tmp_path / "training.json", tmp_path / "training.png"
    arms = "none,lpm+consolidated@1e-2x1,prompt_tuning@3e-2x1,prompt_tuning@3e-2x3"

    options = ["--arms", arms, "--people", "1", "--facts", "2", "--questions", "2", "--model", str(tiny_folder), "--json", str(document)]
    assert CliRunner().invoke(bench, ["probes", *options], catch_exceptions=False).exit_code == 0
    assert all(row["cost"]["build_s"] > 0 for name, row in json.loads(document.read_text())["arms"].items() if name != "none")

    _run("training", str(document), "--png", str(png))
    assert png.read_bytes().startswith(_PNG)


def test_training_from_two_starts_is_drawn(tmp_path: Path) -> None:
    document, png = tmp_path / "starts.json", tmp_path / "starts.png"
    document.write_text(json.dumps({"curves": {"cold": {"loss": [2.0, 1.0]}, "random": {"loss": [5.0, 4.0]}}}))

    _run("starts", str(document), "--png", str(png))
    assert png.read_bytes().startswith(_PNG)


@pytest.mark.parametrize("name", ["lpm_slots", "lpm@0", "lpm_static@3", "lpm@1.5"])
def test_an_arm_without_a_sensible_number_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="lpm_slots@N"):
        CliRunner().invoke(bench, ["probes", "--arms", name], catch_exceptions=False)


def test_attention_of_a_question_names_the_turns_behind_it(tiny: LPM, tmp_path: Path) -> None:
    _told(tiny, 1)
    figure = figures.attention(tiny, "user0", "Where do I live?")
    assert any("town 0" in label.get_text() for label in figure.axes[0].get_yticklabels())
    assert figure.axes[0].get_title() == "Where do I live?"
    with pytest.raises(InvalidInputError, match="no slots"):
        figures.attention(tiny, "nobody", "Where do I live?")

    png = tmp_path / "attention.png"
    _run("attention", "--png", str(png))  # of somebody made up, on the embedded default
    assert png.read_bytes().startswith(_PNG)
    with pytest.raises(InvalidInputError, match="no question"):
        _run("attention", "--store", f"sqlite:///{tmp_path / 'tiny.db'}")


def test_slots_of_users_are_mapped(tiny: LPM, tiny_folder: Path, tmp_path: Path) -> None:
    _told(tiny, 3)
    png = tmp_path / "slots.png"

    _run("slots", "--store", f"sqlite:///{tmp_path / 'tiny.db'}", "--model", str(tiny_folder), "--png", str(png))
    assert png.read_bytes().startswith(_PNG)
    with pytest.raises(InvalidInputError, match="at least 4"):
        figures.slots(tiny, ["nobody"])


@pytest.mark.parametrize("kind", ["scaling", "ablation", "training", "starts"])
def test_another_document_is_refused_with_the_command_that_makes_one(kind: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DatasetError, match="lpm bench"):
        _run(kind, str(tmp_path / "other.json"))
    with pytest.raises(DatasetError, match="cannot read"):
        _run(kind, str(tmp_path / "missing.json"))
