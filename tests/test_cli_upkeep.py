"""The commands that look after a store: forget, expire, export, restore, doctor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from store_kit import sql
from typer.testing import CliRunner

from lpm_core import LPM, InvalidInputError, MemoryStore, StoreCorruptError
from lpm_core.cli import app

Lpm = Callable[..., Result]


@pytest.fixture
def lpm_command(tiny: LPM, tiny_folder: Path, url: str) -> Lpm:
    """The command on the tiny engine and a store in which Ann and Bob said something."""
    with tiny.on_store(url) as engine:
        engine.remember("ann", "I live in Oslo.", session_id="s1", at="2024-05-01")
        engine.remember("ann", "My dog is Rex.", session_id="s2", at="2024-06-01")
        engine.remember("bob", "I am Bob.", at="2024-05-01")

    def run(*arguments: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, [*arguments, "--store", url, "--model", str(tiny_folder)], input=answer)

    return run


def said(url: str, user: str) -> list[str]:
    with MemoryStore(url) as store:
        return [turn.content for turn in store.turns(user)]


@pytest.mark.parametrize(
    ("options", "left"),
    [(["--session", "s1"], ["My dog is Rex."]), (["--before", "2024-05-15"], ["My dog is Rex."]), (["--all"], [])],
)
def test_forget(lpm_command: Lpm, url: str, options: list[str], left: list[str]) -> None:
    result = lpm_command("forget", "ann", *options, "--yes", "--json")

    assert result.exit_code == 0
    (receipt,) = json.loads(result.stdout)
    assert (receipt["user_id"], receipt["turns"], receipt["vacuumed"]) == ("ann", 2 - len(left), True)
    assert [said(url, "ann"), said(url, "bob")] == [left, ["I am Bob."]]


def test_forget_by_turn_asks_first(lpm_command: Lpm, url: str) -> None:
    with MemoryStore(url) as store:
        first = store.turns("ann")[0].id

    assert lpm_command("forget", "ann", "--turn", first, answer="n\n").exit_code == 1
    assert len(said(url, "ann")) == 2
    assert "forgot 1 turns and 1 sessions of 'ann'" in lpm_command("forget", "ann", "--turn", first, answer="y\n").stdout
    assert said(url, "ann") == ["My dog is Rex."]


@pytest.mark.parametrize("options", [[], ["--all", "--session", "s1"], ["--turn", "x", "--before", "2024-05-15"]])
def test_forget_must_know_what(lpm_command: Lpm, url: str, options: list[str]) -> None:
    assert isinstance(lpm_command("forget", "ann", *options, "--yes").exception, InvalidInputError)
    assert len(said(url, "ann")) == 2


def test_expire(lpm_command: Lpm, url: str) -> None:
    assert lpm_command("expire", "--ttl", "1d", answer="\n").exit_code == 1
    assert "bob" not in lpm_command("expire", "ann", "--ttl", "1d", "--yes").stdout
    assert [said(url, "ann"), said(url, "bob")] == [[], ["I am Bob."]]
    assert "'bob'" in lpm_command("expire", "--ttl", "1d", "--yes").stdout
    assert lpm_command("expire", "--ttl", "1d", "--yes").stdout == "nothing to forget\n"


@pytest.mark.parametrize("ttl", ["", "d", "30", "-3d", "3y"])
def test_an_age_that_is_none_is_refused(lpm_command: Lpm, url: str, ttl: str) -> None:
    assert isinstance(lpm_command("expire", f"--ttl={ttl}", "--yes").exception, InvalidInputError)
    assert len(said(url, "ann")) == 2


def test_export_and_restore(lpm_command: Lpm, url: str, tmp_path: Path) -> None:
    file = str(tmp_path / "ann.lpm")
    assert lpm_command("export", "ann", file).exit_code == 0
    lpm_command("forget", "ann", "--all", "--yes")

    restored: Any = json.loads(lpm_command("restore", file, "--json").stdout)

    assert restored == {"user_id": "ann", "turns": 2, "present": 0}
    assert said(url, "ann") == ["I live in Oslo.", "My dog is Rex."]
    assert "0 turns of 'ann'; 2 were there" in lpm_command("restore", file).stdout


def test_doctor(lpm_command: Lpm, url: str, path: Path) -> None:
    assert "2 users, 3 turns, 3 pages: sound" in lpm_command("doctor").stdout
    sql(path, "UPDATE turns SET at = at + 1 WHERE session_key = 1")
    sql(path, "UPDATE pages SET tokens = 1 WHERE session_key = 2")

    found = lpm_command("doctor", "--json")
    repaired = lpm_command("doctor", "--repair")

    assert [found.exit_code, repaired.exit_code] == [2, 2]
    assert [finding["kind"] for finding in json.loads(found.stdout)["findings"]] == ["turn", "page"]
    assert "checksum" in repaired.stdout
    with pytest.raises(StoreCorruptError):
        said(url, "ann")
    assert lpm_command("doctor", "--drop-damaged", "--yes").exit_code == 0
    assert said(url, "ann") == ["My dog is Rex."]
    assert lpm_command("doctor").exit_code == 0
