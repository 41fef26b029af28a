"""A progress bar on a terminal; silence elsewhere."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Bar"]


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
