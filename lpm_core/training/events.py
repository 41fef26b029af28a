"""What people do at some time, told by the day on which they tell it: "I flew to Oslo yesterday", and asked for by its date."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from lpm_core.dates import resolve
from lpm_core.training.splits import Split, bucket, data
from lpm_core.training.splits import wordings as split_wordings

__all__ = ["Event", "days", "new_events"]

_FIRST_DAY, _DAYS = datetime(2019, 1, 1, 12, tzinfo=UTC), 4000  # on which sessions are
_TRIES = 64


@cache
def _events(split: Split) -> tuple[tuple[str, ...], ...]:
    """What was done, what is done and, if there are any, other words for it."""
    return tuple(tuple(part.strip() for part in row.split("|")) for row in data("events.toml")["events"] if bucket(row) == split)


def days(rng: random.Random, sessions: int) -> tuple[datetime, ...]:
    """When each of a person's sessions is: noon of days up to six weeks apart."""
    at = _FIRST_DAY + timedelta(days=rng.randrange(_DAYS))
    found = []
    for _ in range(sessions):
        found.append(at)
        at += timedelta(days=rng.randint(1, 42))
    return tuple(found)


@dataclass(frozen=True)
class Event:
    """What was done `did`, what is done `do`, and the words for it that a question uses; `ahead`: it is still to come when it is told."""

    did: str
    do: str
    asked: str
    ahead: bool
    split: Split

    def tell(self, at: datetime, rng: random.Random) -> tuple[str, str]:
        """A sentence of a day, and the date that it tells of: one of the split's own, if there is one among several dozen."""
        frames, times = ("told_before", "coming") if self.ahead else ("told", "times")
        for _ in range(_TRIES):
            time = rng.choice(data("events.toml")[times])
            date = re.sub(r"^.*\((.*)\)$", r"\1", resolve(time, at))
            if bucket(date) == self.split:
                break
        frame = rng.choice(split_wordings(data("events.toml")[frames], self.split))
        text = frame.replace("{d}", self.did).replace("{b}", self.do).replace("{t}", time)
        return text[0].upper() + text[1:] if frame[0] != "h" else text, date

    def ask(self, rng: random.Random) -> str:
        """A question for the date."""
        frame: str = rng.choice(split_wordings(data("events.toml")["asked_before" if self.ahead else "asked"], self.split))
        return frame.replace("{d}", self.did).replace("{b}", self.asked)


def new_events(split: Split, count: int, value: Callable[[str], str], rng: random.Random) -> list[Event]:
    """`count` different events of a split, with blanks filled by `value(pool)`."""
    found = []
    for row in rng.sample(_events(split), count):
        filled = {pool: value(pool) for pool in re.findall(r"\{(\w+)\}", " ".join(row))}
        did, do, *others = (part.format(**filled) for part in row)
        found.append(Event(did, do, rng.choice([do, *others]), rng.random() < 0.35, split))
    return found
