"""Slots refined on questions with given answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lpm_core import LPM, UnknownUserError
from lpm_core.cli import app
from lpm_core.consolidation import ConsolidationRecipe
from lpm_core.exceptions import InvalidInputError

_EXAMPLES = [("Which town do I call home?", "Rotterdam")] * 6


def test_examples_are_learned_and_kept(lpm: LPM) -> None:
    lpm.remember("ann", "I have lived in a harbour town called Rotterdam since 1999.", session_id="monday")
    lpm.remember("ben", "I live in Oslo.")
    before = lpm.slots("ben").values

    report = lpm.fit("ann", _EXAMPLES, ConsolidationRecipe(learning_rate=3e-2, steps=40))

    assert report.promoted
    assert report.after >= report.before
    assert lpm.ask("ann", _EXAMPLES[0][0]).text == "Rotterdam"
    assert torch.equal(lpm.slots("ben").values, before)


@pytest.mark.parametrize("examples", [[], [("Where?", "Oslo")], "Where?", [("Where?",), ("Who?", "Ann")], [("", "Oslo")] * 2, [("Where?", 3)] * 2, None])
def test_examples_that_are_none_are_named(tiny: LPM, examples: Any) -> None:
    tiny.remember("ann", "I live in Oslo.")
    with pytest.raises(InvalidInputError, match="example"):
        tiny.fit("ann", examples)


async def test_a_user_without_a_history_is_unknown(tiny: LPM) -> None:
    with pytest.raises(UnknownUserError):
        await tiny.afit("nobody", _EXAMPLES)


def test_the_command_reads_json_lines(tiny_folder: Path, tmp_path: Path) -> None:
    store, file = f"sqlite:///{tmp_path / 'fit.db'}", tmp_path / "examples.jsonl"
    file.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in _EXAMPLES))
    options = ["--store", store, "--model", str(tiny_folder)]
    run = CliRunner()
    assert run.invoke(app, ["remember", "ann", "I live in Rotterdam.", *options]).exit_code == 0

    result = run.invoke(app, ["fit", "ann", str(file), "--steps", "2", "--json", *options])
    assert json.loads(result.stdout)[0]["questions"] == 6, result.output

    file.write_text('{"question": "Where?"}\n')
    with pytest.raises(InvalidInputError, match="question"):
        run.invoke(app, ["fit", "ann", str(file), *options], catch_exceptions=False)
