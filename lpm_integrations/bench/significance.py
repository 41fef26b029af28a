"""How sure a comparison is: bootstrap intervals, paired by question, and an exact sign test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import comb
from typing import Any, Final, Literal

import numpy as np

from lpm_core.exceptions import DatasetError, InvalidInputError

__all__ = ["RESAMPLES", "compare", "mean_interval", "pooled", "seeds_apart", "sign_test"]

RESAMPLES: Final = 10_000
"""Bootstrap samples of an interval."""

_CHUNK = 500  # samples drawn at once
_OWN = ("seed", "arms", "jobs")  # of a config: what documents that are taken together may have of their own


def mean_interval(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani, 1993), the same for the same seed. Raises InvalidInputError for no values."""
    if not values:
        raise InvalidInputError("an interval needs at least one value")
    drawn, known = np.random.default_rng(seed), np.asarray(values, dtype=np.float64)  # [n]
    means = np.concatenate([known[drawn.integers(len(known), size=(_CHUNK, len(known)))].mean(1) for _ in range(RESAMPLES // _CHUNK)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value that wins and losses are equally likely; ties do not count."""
    total, fewer = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(comb(total, count) for count in range(fewer + 1)) / (1 << total))


def compare(
    result: Mapping[str, Any], first: str, second: str, *, measure: Literal["scores", "gold_nlls"] = "scores", seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Two arms of a result document on the questions they share: "overall", then by category id.

    measure: the scores, or the negative log-likelihoods of the gold answers, of which the lower one wins. difference is the
    mean of first - second over questions, interval its 95 % paired bootstrap interval, p the sign test's.
    Raises InvalidInputError for an arm that is not in the document, DatasetError for a document without the measure by question.
    """
    sides = [_by_question(result, arm, measure) for arm in (first, second)]
    better = 1 if measure == "scores" else -1
    compared: dict[str, dict[str, Any]] = {}
    pairs = {key: [(sides[0][key][name], sides[1][key][name]) for name in sides[0][key] if name in sides[1].get(key, {})] for key in sides[0]}
    for key, both in {"overall": [pair for chosen in pairs.values() for pair in chosen], **pairs}.items():
        if both:
            differences = [one - other for one, other in both]
            wins, losses = (sum(value * sign > 0 for value in differences) for sign in (better, -better))
            compared[key] = {
                "n": len(both),
                "first": sum(one for one, _ in both) / len(both),
                "second": sum(other for _, other in both) / len(both),
                "difference": sum(differences) / len(both),
                "interval": mean_interval(differences, seed=seed),
                "wins": wins,
                "losses": losses,
                "p": sign_test(wins, losses),
            }
    if not compared:
        raise DatasetError(f"{first!r} and {second!r} share no question: run both on the same data")
    return compared


def pooled(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Documents of one benchmark and other seeds, as one for `compare`: all questions of the arms that all of them have. Raises as `seeds_apart` does."""
    seeds_apart(results)
    arms: dict[str, Any] = {}
    for name in results[0]["arms"]:
        if all(name in result["arms"] for result in results):
            arms[name] = {measure: {} for measure in ("scores", "gold_nlls")}
            for (measure, found), (number, result) in product(arms[name].items(), enumerate(results)):
                for key, values in result["arms"][name].get(measure, {}).items():
                    found.setdefault(key, {}).update({f"{number}/{question}": value for question, value in values.items()})
    return {"benchmark": results[0]["benchmark"], "arms": arms}


def seeds_apart(results: Sequence[Mapping[str, Any]]) -> None:
    """Raises InvalidInputError for documents that are not of the same benchmark, weights and options, with another seed each."""
    runs = [{"benchmark": result["benchmark"], **{name: value for name, value in result["config"].items() if name not in _OWN}} for result in results]
    differing = sorted({name for run in runs for name in {**runs[0], **run} if run.get(name) != runs[0].get(name)})
    if differing:
        raise InvalidInputError(f"the documents differ in {', '.join(differing)}, and cannot be taken together")
    if len({result["config"].get("seed") for result in results}) < len(results):
        raise InvalidInputError("two of the documents have the same seed, and so the same people: name documents of different seeds")


def _by_question(result: Mapping[str, Any], arm: str, measure: str) -> Mapping[str, Mapping[str, float]]:
    arms: Mapping[str, Any] = result.get("arms", {})
    if arm not in arms:
        raise InvalidInputError(f"the result has no arm {arm!r}; it has {', '.join(arms) or 'none'}")
    values: Mapping[str, Mapping[str, float]] | None = arms[arm].get(measure)
    if not values:
        raise DatasetError(f"the arm {arm!r} has no {measure} by question: it is of an earlier version, or was not asked for them; run the benchmark again")
    return values
