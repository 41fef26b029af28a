"""Answers of a run as they come, in JSON lines: an interrupted run keeps what it had, and goes on from there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Self

from lpm_core.exceptions import DatasetError, InvalidInputError

__all__ = ["Partial"]


class Partial:
    """Rows of one run by arm and question; each is in the file when `add` returns. `path` None keeps them in memory only.

    resume: take over the rows of an earlier run, whose configuration must be the same. A line that was cut off in writing is dropped.
    Raises InvalidInputError for another configuration, DatasetError if the file cannot be written.
    """

    def __init__(self, path: Path | None, config: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = path
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = Lock()
        self._file = None
        if path is None:
            return
        header = json.loads(json.dumps(config))
        lines = _lines(path) if resume else []
        if lines and lines[0] != header:
            differs = sorted(key for key in {*header, *lines[0]} if header.get(key) != lines[0].get(key))
            raise InvalidInputError(f"{path} is of a run with another {', '.join(differs)}: leave --resume out to start anew, or repeat that run's options")
        self._rows = {(row["arm"], row["id"]): row for row in lines[1:]}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise DatasetError(f"cannot write {path} ({error.strerror or error}): name another place") from error
        for line in (header, *self._rows.values()):
            self._write(line)

    def get(self, arm: str, question: str) -> dict[str, Any] | None:
        """The row of an arm's answer to a question; None if it is still to be asked."""
        return self._rows.get((arm, question))

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row (from any thread), which names its "arm" and the "id" of its question."""
        with self._lock:
            self._rows[row["arm"], row["id"]] = row
            self._write(row)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path} ({error}): remove it, or leave --resume out to start anew") from error
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break  # cut off while it was written; what follows it is asked again
    return found
