"""Dialogues of people, from files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lpm_core.exceptions import DatasetError

__all__ = ["Message", "read_dialogues"]

Message = tuple[str, str]
"""A role ("user" or "assistant") and what was said."""


def read_dialogues(paths: Iterable[Path]) -> list[list[Message]]:
    """Dialogues from JSON lines (`.jsonl` or `.jsonl.gz`), each `{"turns": [[role, text], …]}` or `{"messages": [{"role": …, "content": …}, …]}`.

    Raises DatasetError, which names the line.
    """
    dialogues: list[list[Message]] = []
    for path in paths:
        opener = gzip.open if path.suffix == ".gz" else open
        before = len(dialogues)
        try:
            with opener(path, "rt", encoding="utf-8") as lines:
                dialogues.extend(_dialogue(json.loads(line)) for line in lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"cannot read {path}, line {len(dialogues) - before + 1}: {type(error).__name__}: {error}. A line is one dialogue, "
                'as {"turns": [["user", "Hello."], …]} or {"messages": [{"role": "user", "content": "Hello."}, …]}'
            ) from error
    return dialogues


def _dialogue(row: dict[str, Any]) -> list[Message]:
    turns = [(turn["role"], turn["content"]) for turn in row["messages"]] if "messages" in row else [(role, text) for role, text in row["turns"]]
    if not all(isinstance(part, str) for turn in turns for part in turn):
        raise ValueError("roles and texts are strings")
    return turns
