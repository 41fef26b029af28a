"""Relative times in what people say, resolved by the day on which they said it: "yesterday" becomes "yesterday (7 May 2023)".

What is remembered is read on other days, and out of its order. The log keeps what was said as it was said.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from dateutil.relativedelta import relativedelta, weekday

__all__ = ["day", "resolve"]

_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS: Final = {"a": 1, "an": 1, "a couple of": 2} | {
    word: number for number, word in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], start=1)
}
_DAYS: Final = {"the day before yesterday": -2, "yesterday": -1, "last night": -1, "tomorrow": 1, "the day after tomorrow": 2}  # all others are the day itself
_BEFORE: Final = {"last": -1, "this past": -1, "this": 0, "next": 1, "this coming": 1}
_PLACE: Final = {-1: "before", 0: "of", 1: "after"}
_PHRASE: Final = re.compile(
    rf"""\b(?:
    (?P<day>the\ day\ before\ yesterday|yesterday|last\ night|today|tonight|this\ (?:morning|afternoon|evening)|the\ day\ after\ tomorrow|tomorrow)
    |(?P<which>last|this\ past|this\ coming|this|next)\ (?P<unit>week|weekend|month|year|{"|".join(_WEEKDAYS)})
    |(?P<number>\d{{1,3}}|{"|".join(map(re.escape, sorted(_NUMBERS, key=len, reverse=True)))}|a\ few|several|some|many)\ (?P<span>day|week|month|year)s?\ (?P<way>ago|from\ now)
    )(?:\ (?:morning|afternoon|evening|night))?+\b(?!['’]s|\ \()""",
    re.IGNORECASE | re.VERBOSE,
)


def day(at: datetime) -> str:
    """A date as the memory writes it: 7 May 2023."""
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def resolve(text: str, at: datetime) -> str:
    """The text with the date behind each relative time in it, in brackets. Resolving it once more changes nothing.

    at: when it was said; its day is taken as `at` has it. "last year", "two months ago" become years and months; "last week" becomes the week before that
    day. Times of the day, and days whose week only the sense tells ("on Friday"), stay as they are, as does what lies beyond the calendar.
    """

    def dated(phrase: re.Match[str]) -> str:
        try:
            return f"{phrase[0]} ({_date(phrase, at)})"
        except (ValueError, OverflowError):  # beyond the calendar
            return phrase[0]

    return _PHRASE.sub(dated, text)


def _date(phrase: re.Match[str], at: datetime) -> str:
    if phrase["day"]:
        return day(at + relativedelta(days=_DAYS.get(phrase["day"].lower(), 0)))
    if phrase["which"]:
        return _near(_BEFORE[phrase["which"].lower()], phrase["unit"].lower(), at)
    number, span, sign = phrase["number"].lower(), phrase["span"].lower(), -1 if phrase["way"].lower() == "ago" else 1
    if not number.isdigit() and number not in _NUMBERS:
        return f"{number} {span}s {_PLACE[sign]} {day(at)}"
    count = sign * (int(number) if number.isdigit() else _NUMBERS[number])
    then = at + relativedelta(**{f"{span}s": count})
    return _coarse(then, span) if span in ("month", "year") else day(then)


def _near(step: int, unit: str, at: datetime) -> str:
    """The unit of time before, around or after a day."""
    if unit in _WEEKDAYS:
        nearest = weekday(_WEEKDAYS.index(unit))(-1 if step < 0 else 1)
        return day(at + relativedelta(days=step) + relativedelta(weekday=nearest))
    if unit in ("month", "year"):
        return _coarse(at + relativedelta(**{f"{unit}s": step}), unit)
    return f"the {unit} {_PLACE[step]} {day(at)}"


def _coarse(at: datetime, unit: str) -> str:
    return str(at.year) if unit == "year" else f"{_MONTHS[at.month - 1]} {at.year}"
