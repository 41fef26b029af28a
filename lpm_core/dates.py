"""Relative times in what people say, resolved by the day on which they said it: "yesterday" becomes "yesterday (7 May 2023)".

What is remembered is read on other days, and out of its order. The log keeps what was said as it was said. A wrong date is worse than none: what
may mean another day, or none ("our last night", "two or three weeks ago", "this Monday" said on a Friday), stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from dateutil.relativedelta import relativedelta, weekday

__all__ = ["VERSION", "resolve"]

VERSION: Final = 1
"""To be raised when `resolve` gives other texts: what was written by another version is written anew."""

_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WORDS: Final = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBERS: Final = {"a": 1, "an": 1, "a couple": 2, "a couple of": 2, "thirty": 30, "forty": 40, "fifty": 50} | {word: at for at, word in enumerate(_WORDS, 1)}
_DAYS: Final = {"the day before yesterday": -2, "yesterday": -1, "last night": -1, "tomorrow": 1, "the day after tomorrow": 2}  # all others are the day itself
_BEFORE: Final = {"last": -1, "this past": -1, "this": 0, "next": 1, "this coming": 1}
_PLACE: Final = {-1: "before", 0: "of", 1: "after"}


def _any(phrases: Iterable[str]) -> str:
    """A pattern for one of the phrases, the longest first, whatever space is between their words."""
    return "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in sorted(phrases, key=len, reverse=True))


_PHRASE: Final = re.compile(
    rf"""(?<![\w.,@/_=(\#"“'‘’–-])(?ai:
    (?P<day>{_any([*_DAYS, "today", "tonight", "this morning", "this afternoon", "this evening"])})
    |(?P<which>{_any(_BEFORE)})\s+(?P<unit>{_any([*_WEEKDAYS, "week", "weekend", "month", "year"])})
    |(?P<number>\d{{1,3}}|{_any([*_NUMBERS, "a few", "several", "some"])})\s+(?P<span>day|week|month|year)s?\s+(?P<way>{_any(["ago", "from now"])})
    )(?ai:\s+(?:morning|afternoon|evening|night))?+
    (?!\w|[@/_=(-]|\.\w|['’]\w|\s*\(|\s+(?ai:of|week|today|tomorrow|yesterday|{_any(_BEFORE)})\b|,?\s+(?ai:(?:on\s+)?(?:the\s+)?(?:\d+(?:st|nd|rd|th)|{_any(_MONTHS)}))\b)""",
    re.VERBOSE,
)
_TELLS_ANOTHER: Final = frozenset(
    ("the", "my", "our", "his", "her", "their", "your", "its", "every", "each", "very", "one", "of", "from", "before", "after", "ago", "week", "no")
)
"""Words before a day, or a week, that is not the one nearest to the speaker."""
_COUNTS_ON: Final = frozenset(
    (*_NUMBERS, "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "and", "or", "to", "of", "half", "than", "least", "most", "over", "under")
)
"""Words before a number that is not all that is meant."""
_LAST_WORD: Final = re.compile(r"([\w’']+)[\s-]+$")
_MID_SENTENCE: Final = re.compile(r"[\w,;]\s+$")


def _day(at: datetime) -> str:
    """A date as the memory writes it: 7 May 2023."""
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def resolve(text: str, at: datetime) -> str:
    """The text with the date behind each relative time in it, in brackets. Resolving it once more changes nothing, and no text raises.

    at: when it was said, with its zone; the day is that of the machine's time zone. "last year", "two months ago" become years and months; "last week"
    becomes the week before that day. Times of the day, and days whose week only the sense tells ("on Friday"), stay as they are, as does what lies beyond the calendar.
    """

    def dated(phrase: re.Match[str]) -> str:
        try:
            date = None if _means_another(phrase) else _date(phrase, at.astimezone())
        except (ValueError, OverflowError, OSError):  # beyond the calendar
            date = None
        return f"{phrase[0]} ({date})" if date else phrase[0]

    return _PHRASE.sub(dated, text)


def _means_another(phrase: re.Match[str]) -> bool:
    """Whether the words before a phrase, or its capitals, make something else of it."""
    before = phrase.string[max(0, phrase.start() - 24) : phrase.start()]
    last = _LAST_WORD.search(before)
    word = last[1].lower() if last else ""
    capitals = [part for part in phrase[0].split() if part[0].isupper() and part.lower() not in _WEEKDAYS]
    title = len(capitals) > 1 or (bool(capitals) and bool(_MID_SENTENCE.search(before)))
    return title or word in (_COUNTS_ON if phrase["number"] else _TELLS_ANOTHER) or word.endswith(("'s", "’s"))


def _date(phrase: re.Match[str], at: datetime) -> str | None:
    if phrase["day"]:
        return _day(at + relativedelta(days=_DAYS.get(_plain(phrase["day"]), 0)))
    if phrase["which"]:
        return _near(_BEFORE[_plain(phrase["which"])], _plain(phrase["unit"]), at)
    number, span, sign = _plain(phrase["number"]), _plain(phrase["span"]), -1 if _plain(phrase["way"]) == "ago" else 1
    if not number.isdigit() and number not in _NUMBERS:
        return f"{number} {span}s {_PLACE[sign]} {_day(at)}"
    count = sign * (int(number) if number.isdigit() else _NUMBERS[number])
    then = at + relativedelta(**{f"{span}s": count})
    return _coarse(then, span) if span in ("month", "year") else _day(then)


def _plain(phrase: str) -> str:
    return " ".join(phrase.lower().split())


def _near(step: int, unit: str, at: datetime) -> str | None:
    """The unit of time before, around or after a day; None for a day of this week that is past: it may be the one to come."""
    if unit in _WEEKDAYS:
        number = _WEEKDAYS.index(unit)
        if not step and number < at.weekday():
            return None
        return _day(at + relativedelta(days=step) + relativedelta(weekday=weekday(number)(-1 if step < 0 else 1)))
    if unit in ("month", "year"):
        return _coarse(at + relativedelta(**{f"{unit}s": step}), unit)
    return f"the {unit} {_PLACE[step]} {_day(at)}"


def _coarse(at: datetime, unit: str) -> str:
    return str(at.year) if unit == "year" else f"{_MONTHS[at.month - 1]} {at.year}"
