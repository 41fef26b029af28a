"""The `lpm` command, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lpm_integrations.bench.datasets.locomo import SAMPLE


def _lpm(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LPM_HOME": str(home), "COLUMNS": "160"}
    return subprocess.run([sys.executable, "-W", "error", "-m", "lpm_core", *arguments], env=environment, capture_output=True, text=True)


def test_one_process_remembers_and_another_answers(tmp_path: Path) -> None:
    told = _lpm("remember", "ann", "I live in Lisbon.", "My dog is called Rex.", "--at", "2023-05-08", home=tmp_path)
    asked = _lpm("ask", "ann", "Where do I live?", "--json", home=tmp_path)
    listed = _lpm("turns", "ann", "--json", home=tmp_path)

    assert (told.returncode, told.stdout.strip()) == (0, "remembered 2 turns of 'ann'")
    answer = json.loads(asked.stdout)
    assert answer["text"] == "Lisbon"
    assert answer["evidence"][0]["content"] == "I live in Lisbon."
    assert [turn["content"] for turn in json.loads(listed.stdout)] == ["I live in Lisbon.", "My dog is called Rex."]
    assert {turn["at"] for turn in json.loads(listed.stdout)} == {"2023-05-08T00:00:00+00:00"}
    assert _lpm("users", home=tmp_path).stdout.strip() == "ann"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["remember", "ann", ""], "empty"),
        (["remember", "ann", "Hi", "--at", "soon"], "soon"),
        (["ask", "ann", "Hi", "--model", "/no/such/folder"], "/no/such/folder"),
        (["ask", "ann", "Hi", "--store", "mysql://x"], "mysql"),
        (["bench", "locomo", "--data", "/no/such.json"], "/no/such.json"),
        (["bench", "probes", "--arms", "none,magic"], "magic"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(tmp_path: Path, arguments: list[str], named: str) -> None:
    result = _lpm(*arguments, home=tmp_path)

    assert result.returncode == 1
    assert named in result.stderr
    assert "Traceback" not in result.stderr


def test_bench_probes_writes_its_document(tmp_path: Path) -> None:
    out = tmp_path / "probes.json"

    result = _lpm("bench", "probes", "--people", "3", "--questions", "4", "--arms", "none,shuffled,full,rag,lpm", "--json", str(out), home=tmp_path)

    assert result.returncode == 0, result.stderr
    document = json.loads(out.read_text())
    assert set(document) == {"benchmark", "arms", "config", "environment"}
    assert set(document["arms"]) == {"none", "shuffled", "full", "rag", "lpm"}
    for row in document["arms"].values():
        assert set(row["cost"]) == {"prompt_tokens", "soft_tokens", "kv_bytes", "search_ms", "total_ms", "build_s"}
        assert row["n"] == 12
    assert document["arms"]["lpm"]["cost"]["kv_bytes"] < document["arms"]["full"]["cost"]["kv_bytes"]
    assert "lpm" in result.stdout


def test_bench_locomo_runs_on_the_sample(tmp_path: Path) -> None:
    out = tmp_path / "locomo.json"

    result = _lpm("bench", "locomo", "--data", str(SAMPLE), "--arms", "none,lpm", "--conversations", "1", "--questions", "6", "--json", str(out), home=tmp_path)

    assert result.returncode == 0, result.stderr
    document = json.loads(out.read_text())
    assert document["config"]["conversations"] == 1
    assert all(row["n"] == 6 and row["gold_nll"] > 0 for row in document["arms"].values())
