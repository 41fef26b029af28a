"""Plots of a report as inline SVG: points, bars and curves, drawn with plain strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

__all__ = ["bars", "curves", "points"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 320, 60, 90, 20, 50
_ROW, _NAMES = 34, 120


def points(title: str, across: str, up: str, values: Sequence[tuple[str, float, float]]) -> str:
    """Named points (name, x, y): x from 0 on a scale of its own, y a score from 0 to 1."""
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    most = _round_up(max((x for _, x, _ in values), default=1.0))
    parts = [_line(_LEFT, _TOP, _LEFT, _TOP + high), _line(_LEFT, _TOP + high, _LEFT + wide, _TOP + high)]
    for step in range(5):
        share = step / 4
        parts += [
            _text(_LEFT + wide * share, _TOP + high + 18, f"{most * share:g}", "middle"),
            _text(_LEFT - 8, _TOP + high * (1 - share) + 4, f"{share:g}", "end"),
        ]
    taken: list[tuple[float, float]] = []
    for name, x, y in values:
        left, top = _LEFT + wide * x / most, _TOP + high * (1 - y)
        parts += [_dot(left, top, f"{name}: {x:g}, {y:.3f}"), _text(left + 9, _free(left, top + 4, taken), name)]
    parts += [_text(_LEFT + wide / 2, _HEIGHT - 10, across, "middle"), _text(_LEFT + 8, _TOP - 6, up)]
    return _svg(title, _HEIGHT, parts)


def curves(title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Named curves through points (x, y), all above 0, on two logarithmic axes; the name stands at a curve's end."""
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    places = sorted({x for curve in series.values() for x, _ in curve}) or [1.0]
    heights = [y for curve in series.values() for _, y in curve] or [1.0]
    bottom, top = floor(log10(min(heights))), max(ceil(log10(max(heights))), floor(log10(min(heights))) + 1)
    across_all = log10(places[-1] / places[0]) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + wide * log10(x / places[0]) / across_all, _TOP + high * (top - log10(y)) / (top - bottom)

    parts = [_line(_LEFT, _TOP, _LEFT, _TOP + high), _line(_LEFT, _TOP + high, _LEFT + wide, _TOP + high)]
    parts += [_text(at(x, 10.0**bottom)[0], _TOP + high + 18, f"{x:,g}", "middle") for x in places]
    parts += [_text(_LEFT - 8, at(places[0], 10.0**power)[1] + 4, _power(power), "end") for power in range(bottom, top + 1)]
    taken: list[tuple[float, float]] = []
    for name, curve in sorted(
        ((name, curve) for name, curve in series.items() if curve), key=lambda item: item[1][-1][1]
    ):  # from below, as labels give way upwards
        found = [at(x, y) for x, y in curve]
        parts.append(f'<polyline points="{" ".join(f"{left:.1f},{height:.1f}" for left, height in found)}"/>')
        parts += [_dot(left, height, f"{name}: {x:,g}, {y:,.4g}") for (left, height), (x, y) in zip(found, curve, strict=True)]
        parts.append(_text(found[-1][0] + 9, _free(found[-1][0], found[-1][1] + 4, taken), name))
    parts += [_text(_LEFT + wide / 2, _HEIGHT - 10, across, "middle"), _text(_LEFT + 8, _TOP - 6, up)]
    return _svg(title, _HEIGHT, parts)


def bars(title: str, unit: str, values: Sequence[tuple[str, float]]) -> str:
    """Named horizontal bars from 0."""
    most = max((value for _, value in values), default=0.0) or 1.0
    wide = _WIDTH - _NAMES - _RIGHT
    parts = []
    for number, (name, value) in enumerate(values):
        top = 10 + number * _ROW
        length = max(1.0, wide * value / most)
        parts += [
            _text(_NAMES - 8, top + 16, name, "end"),
            f'<rect x="{_NAMES}" y="{top}" width="{length:.1f}" height="{_ROW - 12}"/>',
            _text(_NAMES + length + 6, top + 16, f"{value:,.1f} {unit}"),
        ]
    return _svg(title, 20 + len(values) * _ROW, parts)


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    shown = escape(title)
    body = "".join(parts)
    return f'<figure><figcaption>{shown}</figcaption><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{shown}">{body}</svg></figure>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(x: float, y: float, said: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(said)}</title></circle>'


def _free(x: float, y: float, taken: list[tuple[float, float]]) -> float:
    """Where a label may stand, at y or above it, without covering those that are there."""
    while any(abs(x - other) < 90 and abs(y - height) < 14 for other, height in taken):
        y -= 14
    taken.append((x, y))
    return y


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _power(power: int) -> str:
    """A power of ten, short."""
    return f"{10.0 ** (power % 3 if power >= 3 else power):g}{['', 'k', 'M', 'G', 'T'][min(4, max(0, power // 3))]}"


def _round_up(value: float) -> float:
    """The next number that reads well on an axis: 1, 2, 4 or 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** ceil(log10(value) - 1)
    return float(next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value))
