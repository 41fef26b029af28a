"""What each split may use of the corpus's data: nothing that one shows stands in another."""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

__all__ = ["Split", "bucket", "data", "real", "share", "talk", "wordings"]

Split = Literal["train", "validation", "test"]

_BUCKETS = 10  # invented values: bucket 0 is for test, 1 for validation, the rest for training


@cache
def data(name: str) -> dict[str, Any]:
    """A file of the corpus, parsed."""
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text("utf-8"))


def bucket(text: str) -> Split:
    """The split that a text belongs to, by its checksum: four fifths to training."""
    number = zlib.crc32(text.encode()) % _BUCKETS
    return "test" if number == 0 else "validation" if number == 1 else "train"


def share(items: Sequence[Any], split: Split) -> Sequence[Any]:
    """The first four fifths for training and validation, the last fifth for test."""
    cut = len(items) - len(items) // 5
    return items[cut:] if split == "test" else items[:cut]


@cache
def real(pool: str, split: Split) -> Sequence[str]:
    """Known values of a pool that one split may use: values.toml's last fifth for test, values_more.toml's last tenth for validation."""
    row, more = data("values.toml")[pool], data("values_more.toml").get(pool, {}).get("real", [])
    if split == "test" or not more:
        return share(row["real"], split)
    cut = len(more) - len(more) // 10
    return more[cut:] if split == "validation" else [*share(row["real"], "train"), *more[:cut]]


def wordings(items: Sequence[str], split: Split) -> tuple[str, ...]:
    """All but the last three for training, the third from last for validation, the last two for test."""
    return tuple(items[-2:] if split == "test" else items[-3:-2] if split == "validation" else items[:-3])


@cache
def talk(kind: str, split: Split) -> Sequence[Any]:
    """What one split may use of a list in talk.toml: the last fifth for test, the fifth before for validation; the rest, and the list of more, for training."""
    items, more = data("talk.toml")[kind], data("talk.toml").get(f"more_{kind}", [])
    fifth = len(items) // 5
    cut = len(items) - fifth
    return items[cut:] if split == "test" else items[cut - fifth : cut] if split == "validation" else [*items[: cut - fifth], *more]
