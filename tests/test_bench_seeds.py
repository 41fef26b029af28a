"""Documents of several seeds taken together: mean and spread, and comparisons over all questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lpm_core import InvalidInputError
from lpm_integrations.bench.cli import app
from lpm_integrations.bench.runner import mean_rows
from lpm_integrations.bench.significance import compare, pooled


def document(seed: int, **arms: tuple[float, float]) -> dict[str, Any]:
    """Two questions for each arm, one told and one never told."""
    rows = {
        name: {
            "overall": (told + never) / 2,
            "categories": {"4": told, "5": never},
            "tags": {},
            "counts": {"4": 1, "5": 1},
            "n": 2,
            "scores": {"4": {"q": told}, "5": {"r": never}},
        }
        for name, (told, never) in arms.items()
    }
    return {"benchmark": "probes", "config": {"seed": seed, "backbone": {"memory": "a"}}, "arms": rows}


def test_means_and_spread_are_those_of_the_arms_that_all_documents_have() -> None:
    table = mean_rows([document(0, lpm=(1.0, 0.0), rag=(1.0, 1.0)), document(1, lpm=(0.5, 0.5), none=(0.0, 1.0))])

    assert table == [["arm", "overall", "told", "never told"], ["lpm", "0.500 ± 0.000", "0.750 ± 0.354", "0.250 ± 0.354"]]
    with pytest.raises(InvalidInputError, match="no arm in common"):
        mean_rows([document(0, lpm=(1.0, 0.0)), document(1, rag=(1.0, 0.0))])
    other = document(1, lpm=(1.0, 0.0))
    other["config"]["backbone"] = {"memory": "b"}
    with pytest.raises(InvalidInputError, match="differ in backbone"):
        mean_rows([document(0, lpm=(1.0, 0.0)), other])


def test_questions_of_several_seeds_are_compared_together() -> None:
    found = compare(pooled([document(0, lpm=(1.0, 0.0), rag=(0.0, 1.0)), document(1, lpm=(1.0, 1.0), rag=(0.0, 1.0))]), "lpm", "rag")

    assert (found["overall"]["n"], found["4"]["n"]) == (4, 2)
    assert (found["4"]["difference"], found["5"]["difference"]) == (1.0, -0.5)
    with pytest.raises(InvalidInputError, match="same seed"):
        pooled([document(0, lpm=(1.0, 0.0))] * 2)


def test_the_commands_take_several_documents(tiny_folder: Path, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"seed{seed}.json") for seed in (0, 1)]
    for seed, path in enumerate(paths):
        options = ["--people", "2", "--facts", "2", "--questions", "2", "--arms", "none,lpm", "--seed", str(seed), "--model", str(tiny_folder), "--json", path]
        assert CliRunner().invoke(app, ["probes", *options], catch_exceptions=False).exit_code == 0

    table = CliRunner().invoke(app, ["table", "--mean", *paths], catch_exceptions=False).output
    assert table.count("±") >= 2
    compared = CliRunner().invoke(app, ["compare", *paths, "--arms", "lpm,none", "--json"], catch_exceptions=False).output
    assert json.loads(compared)["overall"]["n"] == 8
