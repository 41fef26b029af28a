"""What a person at the terminal sees: a progress bar (silence elsewhere), and tables that fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["Bar", "narrow_table"]


def narrow_table(title: str, headings: Iterable[str], *, names: int = 0) -> Table:
    """An empty table that spends little on lines and margins: numbers to the right, the column `names` to the left. What is too wide is folded."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == names else "right", overflow="fold", no_wrap=number == names)
    return table


class Bar:
    """One bar: `start` with the number of steps, then `advance`. A context manager."""

    def __init__(self, title: str, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(title, total=None)

    def start(self, total: int) -> None:
        """Set the number of steps."""
        self._progress.update(self._task, total=total)

    def say(self, title: str) -> None:
        """Name what is being done."""
        self._progress.update(self._task, description=title)

    def advance(self, steps: int = 1) -> None:
        """Move on."""
        self._progress.advance(self._task, steps)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
