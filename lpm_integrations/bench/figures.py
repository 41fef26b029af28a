"""Figures with matplotlib: accuracy and cost against the length of the history, slots of several users, attention of one question, ablations, training for a user, training from two starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lpm_core.exceptions import DatasetError, InvalidInputError, MissingDependencyError
from lpm_integrations.bench.arms import parse_arm
from lpm_integrations.bench.starts import smoothed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lpm_core.engine import LPM

__all__ = ["ablation", "attention", "scaling", "slots", "starts", "training"]

_COLORS = {"full": "#888888", "rag": "#d95f02", "lpm": "#1b6ca8", "hybrid": "#7570b3", "none": "#bbbbbb"}


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure of its own, without a window or pyplot's shared state, and its axes in order."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError('matplotlib is not installed: pip install "latent-personal-memory[plots]"') from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def scaling(document: Mapping[str, Any]) -> Figure:
    """Accuracy, tokens, KV cache and time of a question against the tokens of history, from a document of `lpm bench scaling`. Raises DatasetError."""
    lengths = _part(document, "lengths", "scaling")
    tokens = [row["tokens"] for row in lengths.values()]
    figure, axes = _figure(2, 2, 9.5, 6.5)
    measured: tuple[tuple[str, Callable[[Mapping[str, Any]], float], str], ...] = (
        ("questions answered right", lambda row: row["overall"], "linear"),
        ("tokens in the prompt", lambda row: row["cost"]["prompt_tokens"] + row["cost"]["soft_tokens"], "log"),
        ("KV cache of a question, KiB", lambda row: row["cost"]["kv_bytes"] / 1024, "log"),
        ("median time of a question, ms", lambda row: row["cost"]["total_ms"], "log"),
    )
    for axis, (title, value, scale) in zip(axes, measured, strict=True):
        for arm in document["arms"]:
            axis.plot(tokens, [value(row["arms"][arm]) for row in lengths.values()], marker="o", label=arm, color=_COLORS.get(arm))
        window = document["config"]["backbone"]["window"]
        if tokens[0] < window < tokens[-1]:
            axis.axvline(window, color="#aaaaaa", linestyle=":", label="backbone's window")
        axis.set(title=title, xlabel="tokens of history", xscale="log", yscale=scale, xticks=tokens)
        axis.set_xticklabels([f"{number / 1024:.0f}k" if number >= 1024 else str(number) for number in tokens])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylim(0, 1)
    axes[0].legend()
    return figure


def ablation(document: Mapping[str, Any]) -> Figure:
    """Overall score of every arm of a result document, as bars with the 95 % interval of a share. Raises DatasetError."""
    arms = _part(document, "arms", "probes")
    figure, (axis,) = _figure(1, 1, 7.5, 0.42 * len(arms) + 1.2)
    names = list(arms)[::-1]
    scores = [arms[name]["overall"] for name in names]
    spread = [1.96 * (score * (1 - score) / arms[name]["n"]) ** 0.5 for name, score in zip(names, scores, strict=True)]
    axis.barh(names, scores, xerr=spread, color="#1b6ca8", ecolor="#555555")
    for place, score in enumerate(scores):
        axis.text(0.01, place, f"{score:.3f}", va="center", color="white")
    asked = arms[names[0]]["n"]
    axis.set(title=f"{document['benchmark']}: {asked} questions", xlabel="answered right", xlim=(0, 1))
    return figure


def training(document: Mapping[str, Any]) -> Figure:
    """Overall score of arms such as lora@1e-3x100 against their steps and against the seconds they took for a user; other arms are levels. Raises DatasetError."""
    arms = _part(document, "arms", "probes")
    curves: dict[str, list[tuple[int, float, float]]] = {}
    for name, row in arms.items():
        kind, rate, steps = parse_arm(name)
        if steps and "build_s" in row["cost"]:
            curves.setdefault(f"{kind}@{rate:g}", []).append((steps, row["cost"]["build_s"], row["overall"]))
    if not curves:
        raise DatasetError(
            "no arm of this document says how many steps it learned; measure some with `lpm bench probes --arms full,lora@1e-3x30,lora@1e-3x100 --json FILE`"
        )
    figure, axes = _figure(1, 2, 9.5, 4)
    for axis, title, place in zip(axes, ("steps", "seconds for a user"), (0, 1), strict=True):
        for rated, reached in sorted(curves.items()):
            ordered = sorted(reached)
            axis.plot([point[place] for point in ordered], [point[2] for point in ordered], marker="o", label=rated)
        for name in [name for name in arms if "@" not in name]:
            axis.axhline(arms[name]["overall"], color=_COLORS.get(name, "#444444"), linestyle=":", label=name)
        axis.set(xlabel=title, ylabel="answered right", xscale="log", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].legend()
    return figure


def starts(document: Mapping[str, Any]) -> Figure:
    """Loss of answers against steps from a cold start and from new weights, from a document of `lpm bench starts`. Raises DatasetError."""
    curves = _part(document, "curves", "starts")
    figure, (axis,) = _figure(1, 1, 7, 4)
    for place, (name, curve) in enumerate(curves.items()):
        axis.plot(range(1, len(curve["loss"]) + 1), curve["loss"], color=f"C{place}", alpha=0.25)
        axis.plot(range(1, len(curve["loss"]) + 1), smoothed(curve["loss"]), color=f"C{place}", label=name)
    axis.set(title="training of memory weights from two starts", xlabel="steps", ylabel="loss of answers, nats a token", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def slots(lpm: LPM, users: Sequence[str], seed: int = 0) -> Figure:
    """UMAP of the slots of several users, the mean over heads of each, a colour for each user. Raises InvalidInputError for fewer than four slots."""
    try:
        with warnings.catch_warnings():  # it would tell that TensorFlow is missing, for a part that is not used here
            warnings.simplefilter("ignore")
            from umap import UMAP
    except ImportError as error:
        raise MissingDependencyError('umap-learn is not installed: pip install "latent-personal-memory[plots]"') from error
    import torch

    found = [lpm.slots(user).values.mean(0) for user in users]  # [N, d_mem] each
    points = torch.cat(found).numpy()
    if len(points) < 4:
        raise InvalidInputError(f"{len(points)} slots of {len(users)} users: a map needs at least 4; let them say more, or name more users")
    places = UMAP(n_neighbors=min(15, len(points) - 1), random_state=seed, n_jobs=1, init="random" if len(points) < 16 else "spectral").fit_transform(points)
    figure, (axis,) = _figure(1, 1, 8, 6)
    start = 0
    for number, (user, own) in enumerate(zip(users, found, strict=True)):
        part = places[start : start + len(own)]
        axis.scatter(part[:, 0], part[:, 1], s=18, label=user, color=f"C{number % 10}", marker="osD^vP"[number // 10 % 6])
        start += len(own)
    axis.set(title=f"{len(points)} slots of {len(users)} users (UMAP)", xticks=[], yticks=[])
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def attention(lpm: LPM, user: str, question: str, most: int = 16) -> Figure:
    """Each soft token's attention on the slots that a question finds, with the turns behind them. Raises InvalidInputError."""
    weights, owners = lpm.recall(user, question).slot_weights, lpm.slots(user).turns  # [H, N]
    if not owners:
        raise InvalidInputError(f"user {user!r} has no slots: remember something first")
    texts = {turn.id: f"{turn.role}: {' '.join(turn.content.split())}" for turn in lpm.turns(user)}
    shown = weights.mean(0).topk(min(most, weights.shape[1])).indices.sort().values
    figure, (axis,) = _figure(1, 1, 11, 0.32 * len(shown) + 1.6)
    image = axis.imshow(weights[:, shown].T.numpy(), aspect="auto", cmap="Blues", vmin=0, vmax=max(0.05, float(weights.max())))
    labels = [f"{texts[owners[slot][0]][:60]}{f' (+{len(owners[slot]) - 1})' if len(owners[slot]) > 1 else ''}" for slot in shown.tolist()]
    axis.set_yticks(range(len(labels)), [label.replace("$", r"\$") for label in labels], fontsize="small")
    axis.set(title=question.replace("$", r"\$"), xlabel="soft token")
    figure.colorbar(image, label="attention")
    return figure


def _part(document: Mapping[str, Any], key: str, command: str) -> Mapping[str, Any]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, dict) or not found:
        raise DatasetError(f"this document has no {key!r}: make one with `lpm bench {command} --json FILE`")
    return found
