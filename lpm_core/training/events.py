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

__all__ = ["Event", "days", "new_events", "telling_days"]

_AHEAD = 0.35  # of the events that may be planned are still to come
_TRIES = 64  # sentences, until one holds its date: after some words a time may mean another day
_FIRST_DAY, _DAYS = datetime(2019, 1, 1, 12, tzinfo=UTC), 4000  # on which sessions are


@cache
def _events(split: Split) -> tuple[tuple[str, bool], ...]:
    """The rows of a split's events, and whether each may be planned."""
    return tuple((row, kind == "events") for kind in ("events", "mishaps") for row in data("events.toml")[kind] if bucket(row) == split)


def days(rng: random.Random, sessions: int) -> tuple[datetime, ...]:
    """When each of a person's sessions is: noon of days up to six weeks apart."""
    at = _FIRST_DAY + timedelta(days=rng.randrange(_DAYS))
    found = []
    for _ in range(sessions):
        found.append(at)
        at += timedelta(days=rng.randint(1, 42))
    return tuple(found)


def telling_days(rng: random.Random, sessions: int, split: Split) -> tuple[datetime, ...]:
    """The same, of days from which there is something to tell with a date of the split's own."""
    while True:
        found = days(rng, sessions)
        if all(_times(kind, at, split) for kind in ("times", "coming") for at in found):
            return found


@cache
def _times(kind: str, at: datetime, split: Split) -> tuple[tuple[str, str], ...]:
    """Relative times of a list, with their dates, which are the split's own."""
    dated = [(time, resolve(time, at)[len(time) + 2 : -1]) for time in data("events.toml")[kind]]
    return tuple((time, date) for time, date in dated if date and bucket(date) == split)


@dataclass(frozen=True)
class Event:
    """What was done `did`, what is done `do`, and the words for it that a question uses; `ahead`: it is still to come when it is told."""

    did: str
    do: str
    asked: str
    ahead: bool
    split: Split

    def tell(self, at: datetime, rng: random.Random) -> tuple[str, str]:
        """A sentence of one of `telling_days`, and the date that it tells of, which is one of the split's own."""
        frames, times = ("told_before", "coming") if self.ahead else ("told", "times")
        for _ in range(_TRIES):
            time, date = rng.choice(_times(times, at, self.split))
            frame = rng.choice(split_wordings(data("events.toml")[frames], self.split))
            text = frame.replace("{d}", self.did).replace("{b}", self.do).replace("{t}", time)
            text = text[0].upper() + text[1:] if frame[0] == "{" else text
            if date in resolve(text, at):
                break
        return text, date

    def ask(self, rng: random.Random) -> str:
        """A question for the date."""
        frame: str = rng.choice(split_wordings(data("events.toml")["asked_before" if self.ahead else "asked"], self.split))
        return frame.replace("{d}", self.did).replace("{b}", self.asked)


def new_events(split: Split, count: int, value: Callable[[str], str], rng: random.Random) -> list[Event]:
    """`count` different events of a split, with blanks filled by `value(pool)`."""
    found: list[Event] = []
    for row, planned in rng.sample(_events(split), count):
        filled = row.format(**{pool: value(pool).removesuffix("'s") for pool in re.findall(r"\{(\w+)\}", row)})
        did, do, *others = (part.strip() for part in filled.split("|"))
        found.append(Event(did, do, rng.choice([do, *others]), planned and rng.random() < _AHEAD, split))
    return found
