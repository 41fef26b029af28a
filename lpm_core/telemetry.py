"""What the engine tells of its work: figures, and never content.

A call of an operation is one span `lpm.OPERATION` of OpenTelemetry; it adds to the counters `lpm.FIGURE` and to the histogram `lpm.duration`,
and is one DEBUG record of the logger `lpm_core.telemetry`, with the same in its attribute `lpm`. Figures are counts: no id, no text and no error
message is among them, an error is told by the name of its class.

Nothing leaves the process by that. Only the API of OpenTelemetry is used, so that what is heard and where it goes is for the application to
say; without the package (extra `telemetry`) there are the log records alone.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["traced", "traced_pieces"]

_log = logging.getLogger(__name__)

_NAME: Final = "lpm_core"
_FIGURES: Final = {
    "turns": "turns remembered or forgotten",
    "sessions": "whole sessions forgotten",
    "pages": "pages written or forgotten",
    "tokens": "tokens of dialogue written into pages",
    "slots": "slots read, for each head",
    "evidence": "turns given as evidence",
    "prompt_tokens": "tokens of prompts, without soft tokens",
    "soft_tokens": "soft tokens in front of prompts",
    "output_tokens": "tokens generated",
    "users": "users whose slots were refined",
    "questions": "self-study questions",
    "promoted": "users whose refined slots are in use",
}

P = ParamSpec("P")
R = TypeVar("R")


def traced(operation: str, figures: Callable[[Any], Mapping[str, int]]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make every call of a function an operation; `figures` counts what is in its result."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            if not _heard():
                return function(*args, **kwargs)
            with _operation(operation, current=True) as counted:
                result = function(*args, **kwargs)
                counted.update(figures(result))
            return result

        return run

    return decorate


def traced_pieces(operation: str, pieces: Iterator[R], figures: Callable[[], Mapping[str, int]]) -> Iterator[R]:
    """Pieces as they come; the operation begins with the first and ends with the last, or when no more are wanted."""
    if not _heard():
        yield from pieces
        return
    # Between two pieces the caller does something else, which is no part of this operation: its span is nobody's parent.
    with _operation(operation, current=False) as counted:
        try:
            yield from pieces
        finally:
            counted.update(figures())


class _Instruments:
    """Tracer, counters and histogram of OpenTelemetry. They do nothing until the application sets providers."""

    def __init__(self) -> None:
        from opentelemetry import metrics, trace

        self.tracer, meter = trace.get_tracer(_NAME), metrics.get_meter(_NAME)
        self.counters = {name: meter.create_counter(f"lpm.{name}", description=text) for name, text in _FIGURES.items()}
        self.duration = meter.create_histogram("lpm.duration", "s", "time that operations took")
        self.use_span = functools.partial(trace.use_span, record_exception=False, set_status_on_exception=False)
        self.error = trace.StatusCode.ERROR


@functools.cache
def _instruments() -> _Instruments | None:
    try:
        return _Instruments()
    except ImportError:
        return None


def _heard() -> bool:
    return _instruments() is not None or _log.isEnabledFor(logging.DEBUG)


@contextmanager
def _operation(operation: str, *, current: bool) -> Iterator[dict[str, int]]:
    """One operation, and the figures that its caller counts. current: whether operations inside are its children."""
    instruments, counted, failed, begin = _instruments(), dict[str, int](), "", time.perf_counter()
    span = instruments.tracer.start_span(f"lpm.{operation}") if instruments else None
    try:
        with instruments.use_span(span) if instruments and span and current else nullcontext():
            yield counted
    except Exception as error:
        failed = type(error).__name__  # its message and stack may name a user
        raise
    finally:
        seconds = time.perf_counter() - begin
        if instruments and span:
            span.set_attributes({f"lpm.{name}": value for name, value in counted.items()})
            if failed:
                span.set_status(instruments.error, failed)
            span.end()
            for name, value in counted.items():
                instruments.counters[name].add(value, {"lpm.operation": operation})
            instruments.duration.record(seconds, {"lpm.operation": operation} | ({"error.type": failed} if failed else {}))
        told = ", ".join(f"{name} {value}" for name, value in counted.items()) or failed or "done"
        _log.debug(
            "%s in %.1f ms: %s", operation, seconds * 1000, told, extra={"lpm": {"operation": operation, "seconds": seconds, "error": failed, **counted}}
        )
