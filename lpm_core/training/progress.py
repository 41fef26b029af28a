"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Report"]


class Report:
    """Where a training loop says how far it is. Quiet unless `console` is given or standard error is a terminal."""

    def __init__(self, console: Console | None = None, every: int = 20) -> None:
        self.console = console or Console(stderr=True)
        self._every = every
        self._values: dict[str, float] = {}
        self._since = time.monotonic()
        self._count = 0

    def say(self, text: str) -> None:
        """One line for the person watching."""
        self.console.print(text, highlight=False)

    def value(self, **values: float) -> None:
        """Figures of this step, shown smoothed."""
        for name, value in values.items():
            before = self._values.get(name, value)
            self._values[name] = 0.95 * before + 0.05 * value

    def _figures(self) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in self._values.items())

    def steps(self, first: int, last: int, title: str) -> Iterator[int]:
        """Step numbers from `first` to `last`, drawn as they pass."""
        self._values, self._since = {}, time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
            )
            with Progress(*columns, console=self.console) as progress:
                task = progress.add_task(title, total=last, completed=first, figures="")
                for step in range(first, last):
                    yield step
                    progress.update(task, advance=1, figures=self._figures())
            return
        for step in range(first, last):
            yield step
            if (step + 1) % self._every == 0 or step + 1 == last:
                rate = (step + 1 - first) / (time.monotonic() - self._since)
                self.say(f"{title} {step + 1}/{last}  {self._figures()}  {rate:.2f} steps/s")
