"""The bench of tool-calling agents asks what only a remembered fact answers, and counts what is in the call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpm_core import LPM, InvalidInputError
from lpm_integrations.bench.agents import agent_requests, measure_agents
from lpm_integrations.bench.cases import probe_cases
from lpm_integrations.bench.cli import app


def test_requests_need_a_fact_that_was_told_and_do_not_name_it() -> None:
    trials = list(agent_requests(12, 0))

    assert len({trial.user_id for trial in trials}) == 12
    for trial in trials:
        assert trial.question.evidence is not None
        assert trial.question.value in trial.person.turns[trial.question.evidence][1]
        assert trial.question.value.lower() not in trial.question.text.lower()


def test_what_is_counted_are_calls_of_the_right_tool_with_the_value(lpm: LPM) -> None:
    figures = measure_agents(lpm, list(agent_requests(2, 0)))

    assert set(figures["readers"]) == {"lpm", "shuffled", "none"}
    assert len(figures["trials"]) == 6
    for row in figures["trials"]:
        assert row["called"] >= row["filled"] >= row["answered"]
        assert row["filled"] <= any(value.lower() == row["value"].lower() for _, value in row["calls"])


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["agents", "--people", "2", "--json", str(tmp_path / "agents.json")])

    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "agents.json").read_text())["config"]["people"] == 2


def test_another_split_is_refused() -> None:
    for cases in (agent_requests(1, 0, split="train"), probe_cases(1, 0, split="train")):
        with pytest.raises(InvalidInputError, match="'train' is neither test nor validation"):
            next(cases)
