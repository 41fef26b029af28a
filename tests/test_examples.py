"""Every example is short, runs offline as a script of its own, and shows what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("[0-9]*.py"))
_SHOWS = {
    "01_remember": ["model: Bergen", "model: Pixel", "I don't know."],
    "02_langchain_agent": ["agent calls get_weather({'city': 'Oslo'})", "What is remembered"],
    "03_two_users": ["ann: What is my dog called?\n  agent: Pixel", "bob: What is my dog called?\n  agent: Rex"],
    "04_llama_index_chat": ["model: Rex", "model: Lisbon"],
    "05_llama_index_agent": ["agent: Rex", "What was stored"],
    "06_ab_in_your_chain": ["LPM: 4 of 4 right", "RAG: 4 of 4 right"],
    "07_retriever": ["I'm allergic to peanuts."],
    "08_consolidate": ["questions of its own", "answer    Clara"],
    "09_mem0_client": [],
}


def test_all_examples_are_here() -> None:
    assert [path.stem for path in _EXAMPLES] == list(_SHOWS)


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, tmp_path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < 80

    result = subprocess.run([sys.executable, "-W", "ignore", str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=180)

    assert result.returncode == 0, result.stderr[-2000:]
    for text in _SHOWS[path.stem]:
        assert text in result.stdout
