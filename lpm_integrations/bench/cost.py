"""What a question costs: tokens, KV cache, time and memory of each arm at given lengths of history, beside full context and the bare question.

Everything is measured whole: the store, e(x), the projection, and the Chroma memory that the other benchmarks use. A Qwen3 of a known shape has
random weights, and so has its memory: there time and size mean something, and what comes out does not.
"""

from __future__ import annotations

import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from rich.console import Console

from lpm_core.backbone import Backbone
from lpm_core.chat import ChatFormat
from lpm_core.checkpoint import MemoryWeights
from lpm_core.engine import LPM, embedded_folder
from lpm_core.exceptions import InvalidInputError
from lpm_core.settings import LPMConfig
from lpm_core.shapes import SHAPES
from lpm_core.store import MemoryStore
from lpm_core.training.corpus import Corpus
from lpm_core.training.embedded import environment, pick_device
from lpm_core.training.memory import MemoryRecipe
from lpm_core.writer import Chunk, gather_segments
from lpm_integrations.bench.arms import LPMArm, Prompt, arm_names, make_arm
from lpm_integrations.bench.cases import ANSWERABLE, Case, HistoryTurn, TestQuestion
from lpm_integrations.bench.progress import Bar

__all__ = ["ENGINE", "CostPlan", "history", "measure_cost", "measure_write", "notes", "tables"]

ENGINE: Final = "embedded"
"""The name under which the engine is measured, beside shapes."""

_RANDOM = "random weights of backbone and memory: time and size are measured, answers mean nothing; text is in tokens of the embedded tokenizer"
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_KINDS, _WRITING, _BASES = ("none", "full", "rag", "lpm"), ("rag", "lpm"), ("full", "none", "floor")
_FLOOR = "floor"  # prefill of as many tokens as lpm's prompt has, without any work of memory: the physical floor
_SHORTEST, _FACTS = 64, 8
_PAIR = ({"role": "user", "content": "I went to the market this morning."}, {"role": "assistant", "content": "That sounds like a good start."})
_SLACK = 1.25  # estimates of memory are rough
_RATIOS = ("kv_bytes", "first_token_ms", "tokens_per_second", "total_ms")
_COUNTS = ("prompt_tokens", "soft_tokens", "kv_bytes", "kv_bytes_formula")


@dataclass(frozen=True)
class CostPlan:
    """What is measured; validated once. Raises InvalidInputError, which names the value.

    lengths: tokens of history. soft_tokens: H of the shapes; the engine has its own. dtype: None is float32 for the engine, bfloat16 for shapes.
    model, memory: in place of the embedded default.
    """

    shapes: tuple[str, ...] = (ENGINE,)
    lengths: tuple[int, ...] = (256, 512, 896, 4096)
    arms: tuple[str, ...] = ("none", "full", "rag", "lpm")
    repeats: int = 10
    new_tokens: int = 16
    soft_tokens: int = LPMConfig.model_fields["heads"].default
    device: str = "cpu"
    dtype: str | None = None
    seed: int = 0
    model: str | None = None
    memory: str | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("repeats", self.repeats, 1), ("new tokens", self.new_tokens, 2), ("soft tokens", self.soft_tokens, 1)):
            if value < least:
                raise InvalidInputError(f"{name} {value}: at least {least}")
        if not self.lengths or any(length < _SHORTEST for length in self.lengths):
            raise InvalidInputError(f"history lengths {list(self.lengths)}: name one or more, each at least {_SHORTEST} tokens")
        for shape in self.shapes or ("",):
            if shape not in (ENGINE, *SHAPES):
                raise InvalidInputError(f"there is no shape {shape!r}; shapes are {', '.join((ENGINE, *SHAPES))}")
        for arm in arm_names(",".join(self.arms)):
            if arm.partition("@")[0] not in _KINDS:
                raise InvalidInputError(f"the cost of the arm {arm!r} is not measured; arms are {', '.join(_KINDS)}, and rag@K for K turns of text")
        if self.dtype not in (None, *_DTYPES):
            raise InvalidInputError(f"dtype {self.dtype!r} is not one of {', '.join(_DTYPES)}")
        try:
            torch.empty(0, device=pick_device(self.device))
        except (RuntimeError, AssertionError) as error:
            raise InvalidInputError(f"device {self.device!r} cannot be used here ({str(error).splitlines()[0]}): name cpu, or a GPU that is here") from error

    @property
    def measured(self) -> tuple[str, ...]:
        """The arms, and beside lpm its floor."""
        return (*self.arms, *([_FLOOR] if "lpm" in self.arms else []))


def measure_cost(plan: CostPlan, console: Console, earlier: Any = None) -> Iterator[dict[str, Any]]:
    """The result document, after each shape and length: `complete` is true in the last one. `earlier`: what it has is not measured again.

    Each round is a new person: every arm writes the history and answers one question, in an order that rotates; lpm then remembers one more pair of
    turns. The first round warms up. Time to the first token and total time count from the question, search included; where nothing is searched,
    from the finished prompt.
    Raises InvalidInputError if `earlier` is of another run.
    """
    config = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()}
    document: dict[str, Any] = {"benchmark": "cost", "shapes": {}, "config": config, "environment": environment(), "complete": False}
    same = ("benchmark", "config", "environment")
    if earlier is not None and (not isinstance(earlier, dict) or any(earlier.get(key) != document[key] for key in same)):
        raise InvalidInputError("the document is of a run with other options, or elsewhere: leave --resume out to start anew, or repeat that run's options")
    shapes = document["shapes"] = dict(earlier["shapes"]) if earlier else {}
    steps = len(plan.measured) * (plan.repeats + 1)
    with Bar("cost", console) as bar:
        bar.start(len(plan.shapes) * len(plan.lengths) * steps)
        for name in plan.shapes:
            measured = shapes.get(name, {"lengths": {}})["lengths"]
            missing = [length for length in plan.lengths if str(length) not in measured]
            bar.advance((len(plan.lengths) - len(missing)) * steps)
            if not missing:
                continue
            bar.say(f"cost · {name}")
            with ExitStack() as opened:
                subject = _engine(plan, opened) if name == ENGINE else _shape(name, plan, opened)
                shapes[name] = {**subject.about, "lengths": measured}
                for length in missing:
                    bar.say(f"cost · {name} · {length:,} tokens")
                    measured[str(length)] = {"arms": _length(subject, length, plan, bar)}
                    yield document
    yield {**document, "complete": True}


def measure_write(plan: CostPlan, tokens: int = 512) -> dict[str, Any]:
    """One page written in one pass from a chunk of `tokens` tokens, beside one forward pass of the backbone over the same tokens, of each shape of a plan.

    Milliseconds, medians over rounds in which both are measured once, and their ratio.
    """
    document: dict[str, Any] = {"benchmark": "write", "tokens": tokens, "shapes": {}, "repeats": plan.repeats, "environment": environment()}
    for name in plan.shapes:
        with ExitStack() as opened:
            subject = _engine(plan, opened) if name == ENGINE else _shape(name, plan, opened)
            if subject.engine is None:
                document["shapes"][name] = {**subject.about, "skipped": subject.lacks}
                continue
            backbone, weights = subject.backbone, subject.engine.weights
            drawn = random.Random(plan.seed)
            ids = [drawn.randrange(4, len(backbone.embeddings)) for _ in range(tokens)]
            step = weights.config.segment_tokens
            spans = tuple((start, min(start + step, tokens)) for start in range(0, tokens, step))
            chunk = Chunk(tuple(ids), spans, (0,) * len(spans))
            batch = torch.tensor([ids], device=backbone.device)

            def write(backbone: Backbone = backbone, weights: MemoryWeights = weights, chunk: Chunk = chunk, batch: torch.Tensor = batch) -> None:
                segments, lengths = gather_segments(backbone.states(batch), [chunk])
                weights.writer(segments.float(), lengths)

            def forward(backbone: Backbone = backbone, chunk: Chunk = chunk) -> None:
                backbone.hidden(backbone.embed(chunk.ids)[None])

            found: dict[str, list[float]] = {"one_pass_ms": [], "forward_ms": []}
            with torch.inference_mode():
                for number in range(plan.repeats + 1):  # the first warms up
                    for key, work in (("one_pass_ms", write), ("forward_ms", forward)):
                        begin = _now(backbone.device)
                        work()
                        if number:
                            found[key].append((_now(backbone.device) - begin) * 1000)
            medians = {key: round(statistics.median(times), 2) for key, times in found.items()}
            document["shapes"][name] = {**subject.about, **medians, "ratio": round(medians["one_pass_ms"] / medians["forward_ms"], 3)}
    return document


# ---------------------------------------------------------------- what is measured


class _Writes(Protocol):
    """What is needed of an arm."""

    def write(self, case: Case) -> None: ...
    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class _Subject:
    """A backbone without an end token, so that every answer has the same length, and the engine around it.

    lacks: why its weights do not fit this machine; then they are nowhere, and there is no engine.
    """

    backbone: Backbone
    soft: int
    about: dict[str, Any]
    engine: LPM | None = None
    lacks: str | None = None


def _engine(plan: CostPlan, opened: ExitStack) -> _Subject:
    device, dtype = pick_device(plan.device), plan.dtype or "float32"
    engine = opened.enter_context(LPM.from_pretrained(plan.model, memory=plan.memory, store="sqlite://", device=device, dtype=dtype))
    soft = engine.weights.config.heads
    return _Subject(_endless(engine.backbone), soft, _about(engine.backbone, "trained", soft), engine)


def _shape(name: str, plan: CostPlan, opened: ExitStack) -> _Subject:
    from transformers import AutoModelForCausalLM

    device, dtype = pick_device(plan.device), _DTYPES[plan.dtype or "bfloat16"]
    chat = Backbone.load(embedded_folder() / "backbone").chat
    config = SHAPES[name].config()
    make: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = make(config, dtype=dtype)
    if lacks := _lacks(_SLACK * model.num_parameters() * dtype.itemsize, device, "the weights need"):
        backbone = Backbone(model, chat, name=name)
        return _Subject(backbone, plan.soft_tokens, _about(backbone, _RANDOM, plan.soft_tokens), lacks=lacks)
    torch.manual_seed(plan.seed)
    with torch.device(device):
        model = make(config, dtype=dtype)
    backbone = Backbone(model, chat, name=name)
    recipe = MemoryRecipe(heads=plan.soft_tokens, reads=1 + (plan.soft_tokens % 2 == 0))
    weights = MemoryWeights.new(backbone, seed=plan.seed, **recipe.shape)
    engine = opened.enter_context(LPM(backbone, weights.to(backbone.device), MemoryStore("sqlite://")))
    return _Subject(_endless(backbone), plan.soft_tokens, _about(backbone, _RANDOM, plan.soft_tokens), engine)


def _endless(backbone: Backbone) -> Backbone:
    endless = copy.copy(backbone)
    endless.ends = set()
    return endless


def _about(backbone: Backbone, weights: str, soft: int) -> dict[str, Any]:
    device = backbone.device
    return {
        "weights": weights,
        "name": Path(backbone.name).name,
        "parameters": backbone.model.num_parameters(),
        "window": backbone.window,
        "soft_tokens": soft,
        "kv_bytes_per_token": backbone.kv_bytes_per_token,
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


class _Floor:
    """Random ids and vectors, as many as lpm's prompt has tokens: what no memory can be faster than."""

    def __init__(self, subject: _Subject) -> None:
        self._subject = subject

    def write(self, case: Case) -> None:
        """Nothing is kept."""

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:  # noqa: ARG002 (as an arm's)
        """As long as lpm's prompt."""
        backbone, soft = self._subject.backbone, self._subject.soft
        table = backbone.embeddings
        asked = len(backbone.chat.render([{"role": "user", "content": question.text}]))
        embeds = table[torch.randint(len(table), (asked,), device=table.device)]
        return Prompt(torch.cat([torch.randn(soft, table.shape[1], device=table.device, dtype=table.dtype) * table[0].std(), embeds]), soft)

    def close(self) -> None:
        """Nothing was opened."""


def history(length: int, seed: str, chat: ChatFormat) -> tuple[Case, int]:
    """A user with at most `length` tokens of history, less than one turn short of it, and one question; and how many tokens they are.

    People of the project's generator follow each other, a session each; nothing is scored, so that they contradict each other is no matter.
    """
    corpus, rng = Corpus("validation"), random.Random(f"cost/{seed}")
    first = corpus.person(rng, _FACTS, questions=1, unknown=0.0, sessions=1)
    more = (corpus.person(rng, _FACTS, questions=0, sessions=1) for _ in count())
    turns: list[HistoryTurn] = []
    used = 0
    for session, (role, content) in ((session, turn) for session, person in enumerate(chain([first], more)) for turn in person.turns):
        turn = HistoryTurn(f"s{session}", role, content, str(len(turns)))
        size = len(chat.turn(role, chat.content(turn.dated))[0])
        if used + size > length:
            break
        turns.append(turn)
        used += size
    asked = tuple(TestQuestion(seed, question.text, question.answer, ANSWERABLE) for question in first.questions)
    return Case(f"cost-{seed}", tuple(turns), asked), used


# ---------------------------------------------------------------- measuring


def _length(subject: _Subject, length: int, plan: CostPlan, bar: Bar) -> dict[str, Any]:
    """Every arm at one length of history."""
    drawn = [history(length, f"{plan.seed}/{length}/{number}", subject.backbone.chat) for number in range(plan.repeats + 1)]
    cases = [case for case, _ in drawn]
    asked = max(used + len(subject.backbone.chat.render([{"role": "user", "content": case.questions[0].text}])) for case, used in drawn) + plan.new_tokens
    skipped = {name: reason for name in plan.measured if (reason := _unfit(subject, asked if name == "full" else subject.soft))}
    names = [name for name in plan.measured if name not in skipped]
    writing = {name for name in names if name.partition("@")[0] in _WRITING}
    bar.advance(len(skipped) * len(cases))
    with tempfile.TemporaryDirectory(prefix="lpm-cost-") as folder:
        places = {name: Path(folder) / name for name in names}
        with ExitStack() as opened:  # what an empty store takes
            for name in names:
                _arm(name, subject, places[name], plan, opened)
        empty = {name: _disk(place) for name, place in places.items()}
        with ExitStack() as opened:
            arms = {name: _arm(name, subject, places[name], plan, opened) for name in names}
            done, failed = _interleaved(subject, arms, cases, writing, plan, bar)
        stored = {name: round((_disk(places[name]) - empty[name]) / len(cases)) for name in writing}
    skipped |= failed
    found: dict[str, Any] = {}
    for name in plan.measured:
        if name in skipped:
            found[name] = {"skipped": skipped[name]}
        else:
            ratios = {base: _ratios(done[name], done[base]) for base in _BASES if base in done and base != name}
            found[name] = {**_summary(done[name]), "bytes_per_user": stored.get(name), "ratios": ratios, "history_kv": _history_kv(name, done)}
    return found


def _history_kv(name: str, done: Mapping[str, Sequence[Mapping[str, float]]]) -> float | None:
    """KV bytes of the whole history over those of what an arm has in its place, the question left out of both; None where it has nothing."""
    if not {"full", "none"} <= done.keys() or name.partition("@")[0] not in _WRITING:
        return None
    rounds = zip(done["full"], done["none"], done[name], strict=True)
    return round(statistics.median((full["kv_bytes"] - bare["kv_bytes"]) / (row["kv_bytes"] - bare["kv_bytes"]) for full, bare, row in rounds), 2)


def _interleaved(
    subject: _Subject, arms: Mapping[str, _Writes], cases: Sequence[Case], writing: Collection[str], plan: CostPlan, bar: Bar
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Rounds over the cases without the first, by arm; and the arms that ran out of memory."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    failed: dict[str, str] = {}
    names = list(arms)
    for number, case in enumerate(cases):
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            if name in rounds:
                try:
                    row = _round(subject, arms[name], case, plan, writes=name in writing)
                except RuntimeError as error:
                    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):  # on a CPU it has no type of its own
                        raise
                    failed[name] = f"out of memory: {str(error).splitlines()[0][:120]}"
                    del rounds[name]
                else:
                    rounds[name] += [row] if number else []
            bar.advance()
    return rounds, failed


def _arm(name: str, subject: _Subject, folder: Path, plan: CostPlan, opened: ExitStack) -> _Writes:
    """An arm with a folder of its own, closed with `opened`."""
    folder.mkdir(exist_ok=True)
    arm: _Writes
    if subject.engine is None or name == _FLOOR:
        arm = _Floor(subject)
    else:
        engine = opened.enter_context(subject.engine.on_store(f"sqlite:///{(folder / 'memory.db').as_posix()}")) if name == "lpm" else subject.engine
        arm = make_arm(name, engine, folder, plan.new_tokens)
    opened.callback(arm.close)
    return arm


def _round(subject: _Subject, arm: _Writes, case: Case, plan: CostPlan, *, writes: bool) -> dict[str, float]:
    """One arm writes one history and answers one question. What the arm does not do, or the system does not tell, is left out."""
    backbone = subject.backbone
    device = backbone.device
    caches: list[Any] = []
    # e(x) runs through the same hook, without a cache
    hook = backbone.model.model.register_forward_hook(lambda _module, _given, output: caches.extend(filter(None, [output.past_key_values])))
    try:
        with _peaks(device) as peaks:
            begin = _now(device)
            arm.write(case)
            written = _now(device)
            prompt = arm.prompt(case, case.questions[0], plan.new_tokens)
            found = _now(device)
            answer = backbone.generate(prompt.embeds, max_new_tokens=plan.new_tokens)
            next(answer)
            first = _now(device)
            kv_bytes = sum(part.nbytes for layer in caches[0].layers for part in (layer.keys, layer.values))
            resumed = _now(device)
            more = sum(1 for _ in answer)
            done = _now(device)
            if isinstance(arm, LPMArm):
                arm.engine.remember(case.user_id, _PAIR, session_id=case.turns[-1].session_id, at=case.turns[-1].at)
            remembered = _now(device)
    finally:
        hook.remove()
    searched = not isinstance(arm, _Floor)
    start = written if searched else found
    row = {
        "prompt_tokens": len(prompt.embeds) - prompt.soft,
        "soft_tokens": prompt.soft,
        "kv_bytes": kv_bytes,
        "kv_bytes_formula": len(prompt.embeds) * backbone.kv_bytes_per_token,
        "first_token_ms": (first - start) * 1000,
        "tokens_per_second": more / (done - resumed),
        "total_ms": (first - start + done - resumed) * 1000,
    }
    row |= {"search_ms": (found - written) * 1000} if searched else {}
    row |= {"write_ms": (written - begin) * 1000} if writes else {}
    row |= {"remember_ms": (remembered - done) * 1000} if isinstance(arm, LPMArm) else {}
    return row | peaks


def _summary(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Means of what is counted; median, 95th percentile and spread (the middle half over the median) of what is measured; None for what was not."""
    found: dict[str, Any] = {name: round(statistics.fmean(row[name] for row in rows), 1) for name in _COUNTS}
    for name in ("search_ms", "first_token_ms", "tokens_per_second", "total_ms", "write_ms", "remember_ms", "peak_rss_bytes", "peak_device_bytes"):
        values = [row[name] for row in rows if name in row]
        low, middle, high, p95 = np.percentile(values, (25, 50, 75, 95)).tolist() if values else (0.0,) * 4
        found[name] = {"p50": round(middle, 3), "p95": round(p95, 3), "spread": round((high - low) / middle, 3) if middle else 0.0} if values else None
    return found


def _ratios(rows: Sequence[Mapping[str, float]], bases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians of the ratios to another arm, round by round: what slows a machine for a while slows both."""
    return {name: round(statistics.median(row[name] / base[name] for row, base in zip(rows, bases, strict=True)), 4) for name in _RATIOS}


# ---------------------------------------------------------------- the machine


def _unfit(subject: _Subject, positions: int) -> str | None:
    """Why so many positions cannot be measured."""
    backbone = subject.backbone
    if subject.lacks:
        return subject.lacks
    if positions > backbone.window:
        return f"past the window: {positions:,} of {backbone.window:,} tokens"
    config, size = backbone.model.config, backbone.model.dtype.itemsize
    inside = (3 * config.intermediate_size + 8 * config.num_attention_heads * config.head_dim) * size  # of one layer, at one position
    return _lacks(_SLACK * positions * (backbone.kv_bytes_per_token + inside), str(backbone.device), f"{positions:,} tokens need")


def _lacks(needed: float, device: str, what: str) -> str | None:
    free = _free(device)
    return None if free is None or needed <= free else f"too large: {what} about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"


def _free(device: str) -> float | None:
    """Bytes that can still be taken; None where the system does not tell."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    return _proc("/proc/meminfo", "MemAvailable:")


def _proc(path: str, name: str) -> float | None:
    """Bytes in a line of a Linux status file."""
    try:
        lines = Path(path).read_text("ascii").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


@contextmanager
def _peaks(device: torch.device) -> Iterator[dict[str, float]]:
    """The most memory taken inside, known at its end: of the process, model included, and of the GPU. Only Linux tells the former."""
    found: dict[str, float] = {}
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        found["peak_rss_bytes"] = 0.0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if "peak_rss_bytes" in found:
        found["peak_rss_bytes"] = _proc("/proc/self/status", "VmHWM:") or 0.0
    if device.type == "cuda":
        found["peak_device_bytes"] = float(torch.cuda.max_memory_allocated(device))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- tables

_Cell = Callable[[Mapping[str, Any]], str]


def _figure(name: str, share: str = "p50", unit: float = 1, digits: int = 1) -> _Cell:
    return lambda row: "–" if row.get(name) is None else f"{(row[name][share] if isinstance(row[name], dict) else row[name]) / unit:,.{digits}f}"


def _ratio(base: str, name: str) -> _Cell:
    return lambda row: f"{row['ratios'][base][name]:.3g}" if base in row["ratios"] else "–"


def _kv(row: Mapping[str, Any]) -> str:
    differs = row["kv_bytes"] != row["kv_bytes_formula"]
    return f"{row['kv_bytes'] / 1024:,.0f}" + (f" (formula: {row['kv_bytes_formula'] / 1024:,.0f})" if differs else "")


_TABLES: Final[Mapping[str, Mapping[str, _Cell]]] = {
    "tokens and memory": {
        "prompt tok.": _figure("prompt_tokens", digits=0),
        "soft tok.": _figure("soft_tokens", digits=0),
        "KV KiB": _kv,
        "KiB a user": _figure("bytes_per_user", unit=1024),
        "RSS MiB": _figure("peak_rss_bytes", unit=2**20, digits=0),
        "GPU MiB": _figure("peak_device_bytes", unit=2**20, digits=0),
    },
    "write, search and first token, ms": {
        "write": _figure("write_ms"),
        "one pair": _figure("remember_ms"),
        "search": _figure("search_ms"),
        "search p95": _figure("search_ms", "p95"),
        "first token": _figure("first_token_ms"),
        "first p95": _figure("first_token_ms", "p95"),
    },
    "the whole answer, ms": {
        "total": _figure("total_ms"),
        "total p95": _figure("total_ms", "p95"),
        "spread": _figure("total_ms", "spread", digits=2),
        "tokens/s": _figure("tokens_per_second"),
    },
    "ratios to full context": {
        "KV": _ratio("full", "kv_bytes"),
        "first token": _ratio("full", "first_token_ms"),
        "total": _ratio("full", "total_ms"),
        "tokens/s": _ratio("full", "tokens_per_second"),
        "history KV": _figure("history_kv"),
    },
    "ratios to the bare question and to the floor": {
        "KV/none": _ratio("none", "kv_bytes"),
        "first/none": _ratio("none", "first_token_ms"),
        "total/none": _ratio("none", "total_ms"),
        "first/floor": _ratio(_FLOOR, "first_token_ms"),
        "total/floor": _ratio(_FLOOR, "total_ms"),
    },
}


def tables(document: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, headings and lines of the tables of a document of `measure_cost`: of each shape what it takes, how long, and ratios."""
    for shape, subject in document["shapes"].items():
        note = "" if subject["weights"] == "trained" else " (random weights)"
        rows = [(f"{int(length):,}", arm, row) for length, measured in subject["lengths"].items() for arm, row in measured["arms"].items()]
        for kind, columns in _TABLES.items():
            lines = [[length, arm, *("–" if "skipped" in row else cell(row) for cell in columns.values())] for length, arm, row in rows]
            shown = [index for index in range(2 + len(columns)) if index < 2 or any(line[index] != "–" for line in lines)]
            headings = ["history", "arm", *columns]
            if len(shown) > 2:
                yield f"{shape}{note}: {kind}", [headings[index] for index in shown], [[line[index] for index in shown] for line in lines]


def notes(document: Mapping[str, Any]) -> Iterator[str]:
    """What must be said beside the tables: what was not measured and why, and what random weights are good for."""
    for shape, subject in document["shapes"].items():
        if subject["weights"] != "trained":
            yield f"{shape}: {subject['weights']}"
        for length, measured in subject["lengths"].items():
            reasons = {arm: row["skipped"] for arm, row in measured["arms"].items() if "skipped" in row}
            for reason in dict.fromkeys(reasons.values()):
                yield f"{shape}, {int(length):,} tokens of history: {', '.join(arm for arm in reasons if reasons[arm] == reason)}: {reason}"
    if not document.get("complete", True):
        yield "interrupted: not everything was measured"
