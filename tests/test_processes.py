"""Processes that are killed, and processes that write at once. The full runs: `python tests/crash.py`, `python tests/many_writers.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_TESTS = Path(__file__).parent


def _run(script: str, *options: str) -> Any:
    done = subprocess.run([sys.executable, _TESTS / script, *options], capture_output=True, text=True, cwd=_TESTS.parent, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kill_9_at_random_points_loses_nothing() -> None:
    kills = int(os.environ.get("LPM_CRASH_KILLS", "50"))

    result = _run("crash.py", "--kills", str(kills))

    assert (result["kills"], result["lost_turns"], result["unreadable_stores"]) == (kills, 0, 0)
    assert sum(result["killed_in"].values()) == kills


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_write_to_the_same_users_lose_and_double_nothing(kind: str, url: str, request: pytest.FixtureRequest) -> None:
    store = url if kind == "sqlite" else request.getfixturevalue("empty_postgresql")

    assert _run("many_writers.py", "--processes", "4", "--users", "3", "--turns", "5", "--store", store)["present_once"] == 60
