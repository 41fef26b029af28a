"""The README is true: its code runs as pasted, its figures are those of the committed results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lpm_integrations.bench.runner import markdown, mean_rows, rows

_ROOT = Path(__file__).resolve().parents[1]
_README = (_ROOT / "README.md").read_text("utf-8")


def test_the_first_code_block_prints_what_it_says(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12

    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)

    assert result.stdout.splitlines() == ["Pixel 64 My dog is called Pixel.", "Bergen"], result.stderr


@pytest.mark.parametrize("name", ["probes", "locomo"])
def test_figures_are_those_of_the_results(name: str) -> None:
    assert markdown(rows(json.loads((_ROOT / "results" / f"{name}.json").read_text("utf-8")))) in _README


@pytest.mark.parametrize("pattern", ["probes*.json", "consolidated_seed*.json", "changes_seed*.json"])
def test_means_over_seeds_are_those_of_the_results(pattern: str) -> None:
    documents = [json.loads(path.read_text("utf-8")) for path in sorted((_ROOT / "results").glob(pattern))]
    assert len(documents) > 1
    assert markdown(mean_rows(documents)) in _README


def test_files_of_the_map_exist() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", _README.split("## Map")[1], re.MULTILINE)
    assert len(rows) > 10
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        assert (_ROOT / first).exists(), first
        for other in others:
            assert (_ROOT / other).exists() or (_ROOT / first).with_name(other).exists(), other


def test_files_that_the_promises_of_security_name_exist() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (_ROOT / "SECURITY.md").read_text("utf-8"), re.MULTILINE)[2:]
    assert len(rows) > 8
    for promise, tested in rows:
        files = re.findall(r"`([^`]+\.[a-z]+)`", tested)
        assert files, promise
        assert all((_ROOT / file).exists() for file in files), promise


def test_commands_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^make ([a-z-]+)", _README, re.MULTILINE))
    assert targets >= {"demo", "test"}
    makefile = (_ROOT / "Makefile").read_text("utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_no_file_is_longer_than_600_lines() -> None:
    sources = [path for folder in ("lpm_core", "lpm_integrations", "tests") for path in (_ROOT / folder).rglob("*.py")]
    assert not {path.name: count for path in sources if (count := len(path.read_text("utf-8").splitlines())) > 600}
