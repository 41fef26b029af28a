"""Requests that do not name the fact that matters, as a benchmark: four replies each, of which one makes use of what was told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpm_core import InvalidInputError
from lpm_core.training.preferences import LETTERS
from lpm_integrations.bench.cases import OPEN_DOMAIN, preference_cases
from lpm_integrations.bench.cli import app


def test_cases_have_requests_with_four_replies_and_the_turn_that_tells_which_is_right() -> None:
    cases = list(preference_cases(30, 0))

    assert len({case.user_id for case in cases}) == len(cases) > 20
    found = asked = 0
    for case in cases:
        turns = {turn.key: turn.content for turn in case.turns}
        for question in case.questions:
            assert question.category == OPEN_DOMAIN
            assert len(question.options) == 4
            assert question.gold is not None
            right = LETTERS.index(question.gold)
            told = [words for key in question.evidence for words in turns[key].lower().split()]
            fitting = [sum(word in told for word in set(option.lower().split())) for option in question.options]
            found += fitting[right] == max(fitting)
            asked += 1
    assert found > 0.8 * asked  # other words than the value may be shared, too
    with pytest.raises(InvalidInputError, match="train"):
        next(preference_cases(1, 0, split="train"))


def test_the_command_writes_choices_and_the_baseline_that_reads_nothing(tmp_path: Path) -> None:
    out = tmp_path / "preferences.json"
    result = CliRunner().invoke(app, ["preferences", "--people", "3", "--arms", "none,lpm", "--json", str(out)])

    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert set(document["arms"]) == {"none", "lpm"}
    assert 0 <= document["config"]["longest_option"] <= 1
    assert document["config"]["decoding"] == "options by log-likelihood per token"
    assert set(document["arms"]["lpm"]["categories"]) == {"3"}
