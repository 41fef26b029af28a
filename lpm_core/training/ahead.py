"""Batches of a training run, made ahead of it by processes of their own: a GPU learns from them faster than one process makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

__all__ = ["made_ahead"]

T = TypeVar("T")
_AHEAD = 8  # batches that each process keeps ready


class _Made(Dataset[Any]):
    """The batch of each step, made when it is asked for."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __getitem__(self, step: int) -> Any:
        return self._make(step)


def _as_made(batch: Any) -> Any:
    return batch


def made_ahead(make: Callable[[int], T], steps: Sequence[int], workers: int) -> Iterator[T]:
    """`make(step)` of each step in turn, the same in however many `workers`; 0 makes them here, one by one."""
    ahead = _AHEAD if workers else None
    yield from DataLoader(_Made(make), batch_size=None, sampler=steps, num_workers=workers, collate_fn=_as_made, prefetch_factor=ahead)
