"""Values that nobody has heard of: invented words, numbers, dates and times."""

from __future__ import annotations

import random
import re

from lpm_core.training.splits import Split, bucket

__all__ = ["fill", "invented_word"]

_ONSETS = "b br c ch d dr f g gr h j k kr l m n p pl qu r s sh sk st t th tr v w y z".split()  # noqa: SIM905
_VOWELS = "a a e e i i o o u u ai ea oo ou".split()  # noqa: SIM905
_CODAS = ["", "", "", "", *"l n r s t m x nd rk lm th st".split()]  # noqa: SIM905
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
_HOURS = "one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905


def invented_word(split: Split, rng: random.Random) -> str:
    """An invented word of two or three syllables that belongs to one split alone."""
    while True:
        syllables = rng.choice((2, 2, 2, 3))
        text = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if i == syllables - 1 or rng.random() < 0.25 else "") for i in range(syllables)
        )
        if bucket(text) == split:
            return text


def fill(pattern: str, split: Split, rng: random.Random) -> str:
    """A pattern of an invented value (values.toml) with its parts drawn: words, numbers, days, hours."""
    day = rng.randint(1, 28)
    ordinal = f"{day}{'th' if 10 < day < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
    slots = {
        "w": lambda: invented_word(split, rng), "W": lambda: invented_word(split, rng).capitalize(), "n": lambda: str(rng.randint(1, 99)),
        "nnn": lambda: f"{rng.randint(0, 999):03d}", "nnnn": lambda: f"{rng.randint(0, 9999):04d}", "day": lambda: str(day), "ordinal": lambda: ordinal,
        "month": lambda: rng.choice(_MONTHS), "hour": lambda: str(rng.randint(4, 11)), "minute": lambda: f"{rng.randrange(0, 60, 5):02d}", "hourword": lambda: rng.choice(_HOURS),
    }  # fmt: skip
    return re.sub(r"\{(\w+)\}", lambda match: slots[match[1]](), pattern)
