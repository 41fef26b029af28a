"""LPM: the one door to the engine. Everything a user of the package does goes through it."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from lpm_core.asking import AnswerStream, AskOptions, Options
from lpm_core.backbone import Backbone
from lpm_core.bounds import SlotBounds
from lpm_core.chat import Message, cut_at, held_back
from lpm_core.checkpoint import MemoryWeights
from lpm_core.cold import COLD, cold_start
from lpm_core.compaction import compact
from lpm_core.consolidation import ConsolidationRecipe, ConsolidationReport, Study, distill, labelled, self_study
from lpm_core.exceptions import EngineClosedError, InvalidInputError, ModelNotFoundError
from lpm_core.explain import Explanation, explain_recall
from lpm_core.memory import Answer, Evidence, FinishReason, Page, Recall, Slots, Source, Turn, Usage, UserMemory
from lpm_core.paging import Fingerprints, SessionPages
from lpm_core.settings import LPMSettings
from lpm_core.store import MemoryStore, NewTurn
from lpm_core.telemetry import traced, traced_pieces
from lpm_core.tools import check_tools
from lpm_core.upkeep import ForgetReceipt, Upkeep
from lpm_core.validation import check_count, check_dialogue, check_examples, check_messages, check_number, check_source, check_time, check_user_id
from lpm_core.writer import gather_segments

__all__ = ["LPM", "AnswerStream", "AskOptions", "ForgetReceipt"]

_log = logging.getLogger(__name__)

_CACHED_USERS = 64
_SOURCES: tuple[Source, ...] = ("user", "assistant")


class LPM(Upkeep):
    """Latent personal memory around one frozen backbone and one store.

    Every call names its user. Safe to share between threads; the calls that take time have async twins.
    sources: whose turns are written into slots. All turns are in the log, but what tools put out and what was imported
    (system messages too) changes no answer unless "tool" or "import" is named here. num_slots: how many slots of a user are
    read at most (None: as the memory weights say); of those beyond, the oldest are merged, and nothing is lost in the store.
    """

    def __init__(
        self, backbone: Backbone, weights: MemoryWeights, store: MemoryStore, *, sources: Sequence[Source] = _SOURCES, num_slots: int | None = None
    ) -> None:
        self.backbone, self.weights, self.store = backbone, weights.eval().requires_grad_(False), store
        self.num_slots = weights.config.num_slots if num_slots is None else check_count(num_slots, "num_slots", 1)
        self.sources = frozenset(check_source(source) for source in sources)
        self.bounds = SlotBounds.of(weights.writer)
        self._cache: OrderedDict[str, tuple[UserMemory, Slots]] = OrderedDict()
        self._lock = threading.RLock()
        self._closed = False

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        memory: str | Path | None = None,
        store: str | MemoryStore | None = None,
        device: str | None = None,
        dtype: str | None = None,
        local_files_only: bool = False,
        sources: Sequence[Source] = _SOURCES,
        num_slots: int | None = None,
    ) -> Self:
        """Open an engine.

        model: folder or hub name of a Qwen3 (None: LPM_MODEL, else the embedded default). memory: folder of its memory
        weights (None: LPM_MEMORY, else the folder `memory` inside the model's). For a model without any, or with "cold",
        they are made from the model alone, and retrieve whole pieces of what was said. store: a SQLAlchemy URL (None:
        LPM_STORE, else SQLite in LPM_HOME). Raises ModelNotFoundError, MemoryWeightsError, StoreError.
        """
        settings = LPMSettings()
        model = model or settings.model
        memory = memory or (settings.memory if str(model) == settings.model or model is None else None)
        if model is None:
            folder = embedded_folder()
            model, memory = folder / "backbone", memory or folder / "memory"
        if memory is None:
            inside = Path(model) / "memory"
            memory = inside if inside.is_dir() else COLD
        layer = None if memory == COLD else MemoryWeights.describe(memory)["config"]["layer"]
        backbone = Backbone.load(model, device=device or settings.device, dtype=dtype or settings.dtype, layer=layer, local_files_only=local_files_only)
        weights = cold_start(backbone) if memory == COLD else MemoryWeights.load(memory, backbone)
        weights.to(backbone.device)
        opened = store if isinstance(store, MemoryStore) else MemoryStore(store or settings.store_url)
        return cls(backbone, weights, opened, sources=sources, num_slots=settings.num_slots if num_slots is None else num_slots)

    def on_store(self, store: str | MemoryStore) -> Self:
        """An engine with the same model and weights on another store."""
        opened = store if isinstance(store, MemoryStore) else MemoryStore(store)
        return type(self)(self.backbone, self.weights, opened, sources=tuple(self.sources), num_slots=self.num_slots)

    @property
    def _fingerprints(self) -> Fingerprints:
        """What pages of this engine are made with."""
        return {"backbone": self.backbone.fingerprint, "weights": self.weights.fingerprint}

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    # ---------------------------------------------------------------- write

    @traced("remember", lambda ids: {"turns": len(ids)})
    def remember(
        self,
        user_id: str,
        messages: str | Message | Sequence[Message],
        *,
        session_id: str = "default",
        at: datetime | str | None = None,
        source: Source | None = None,
    ) -> list[str]:
        """Add turns to a user's history; they are on disk, and readable through the slots, when this returns.

        messages: one text (of the user), one message or several, each {"role": …, "content": …}. at: when they were
        said (datetime or ISO 8601; without a zone: UTC; None: now); relative times such as "yesterday" get their dates by
        its day where this machine is (TZ), in the slots and not in the log. source: where the words come from, "user",
        "assistant", "tool" or "import" (None: as the role says); only `sources` are written into slots, and a text that
        the user only passes on is "import". Returns the turns' ids. Raises InvalidInputError.
        """
        self._open()
        check_user_id(user_id)
        moment = check_time(at)
        given = None if source is None else check_source(source)
        new = [NewTurn(session_id, role, content, moment, given or own) for role, content, own in check_messages(messages, session_id)]
        turns = self.store.append_turns(user_id, new)
        self._memory(user_id)
        return [turn.id for turn in turns]

    def _memory(self, user_id: str) -> tuple[UserMemory, Slots]:
        """The user's pages, brought up to date with the log."""
        with self._lock:
            while True:
                version = self.store.version(user_id)
                cached = self._cache.get(user_id)
                if cached and cached[0].version == version:
                    self._cache.move_to_end(user_id)
                    return cached
                memory = self._rebuild(user_id, version)
                if memory is None:
                    continue  # the history moved on meanwhile
                config = self.weights.config
                entry = (memory, compact(memory.slots(config.banks, config.slot_size), self.num_slots, address_size=config.address_size))
                self._cache[user_id] = entry
                while len(self._cache) > _CACHED_USERS:
                    self._cache.popitem(last=False)
                return entry

    @traced("rebuild", lambda _: {})
    def _rebuild(self, user_id: str, version: int) -> UserMemory | None:
        """Write the pages that the log calls for and the store does not have; quarantine those out of bounds. None if the log changed meanwhile."""
        pages: list[Page] = []
        for session in self._sessions(user_id):
            fresh = [self._page(session, index) for index in session.numbers]
            now = [self.bounds.checked(page) for page in (*session.pages[: session.kept], *fresh)]
            changed = next((index for index, (page, old) in enumerate(zip_longest(now, session.pages)) if page is not old), None)
            if changed is not None and not self.store.replace_pages(
                user_id, session.id, now[changed:], from_index=changed, version=version, **self._fingerprints
            ):
                return None
            pages += now
        return UserMemory(user_id, version, tuple(pages))

    def _write_ahead(self, user_id: str, on_page: Callable[[int, int], None]) -> bool:
        """Write the pages that `_rebuild` would, one by one as each is computed; no other call waits. False if the log changed meanwhile."""
        version = self.store.version(user_id)
        lacking = [(session, index) for session in self._sessions(user_id) for index in session.numbers]
        for number, (session, index) in enumerate(lacking, start=1):
            self._open()
            with self._lock:
                cached = self._cache.get(user_id)
            if cached and cached[0].version == version:
                break  # a call that needed the rest has written it
            page = self.bounds.checked(self._page(session, index))
            if not self.store.put_pages(user_id, [page], version=version, keep=True, **self._fingerprints):
                return False
            on_page(number, len(lacking))
        with self._lock:
            return self._rebuild(user_id, version) is not None

    def _sessions(self, user_id: str) -> Iterator[SessionPages]:
        """The sessions of a user that slots are written from, with what the store has of each and what it lacks."""
        stored: dict[str, list[Page]] = {}
        written = self._written(user_id)
        for page in self.store.pages(user_id, **self._fingerprints):
            stored.setdefault(page.session_id, []).append(page)
        for session_id, turns in written.items():
            yield SessionPages.of(session_id, turns, stored.get(session_id, []), self.backbone.chat, self.weights.config)

    def _written(self, user_id: str) -> dict[str, list[Turn]]:
        """The turns that slots are written from, by session."""
        sessions: dict[str, list[Turn]] = {}
        for turn in self.store.turns(user_id):
            if turn.source in self.sources:
                sessions.setdefault(turn.session_id, []).append(turn)
        return sessions

    @traced("page", lambda page: {"pages": 1, "tokens": page.tokens})
    @torch.inference_mode()
    def _page(self, session: SessionPages, index: int) -> Page:
        """One page that a session lacks, computed alone, so that the same chunk always gives the same bits."""
        chunk = session.lacking[index - session.kept]
        states = self.backbone.states(torch.tensor([chunk.ids], device=self.backbone.device)).float()
        slots = self.weights.writer(*gather_segments(states, [chunk]))  # [G, S, d_mem]
        owners = session.owners(chunk)
        return Page(session.id, index, slots.cpu().clone(), owners, tuple(dict.fromkeys(owners)), len(chunk.ids))

    # ---------------------------------------------------------------- read

    def recall(self, user_id: str, message: str | Sequence[Message], *, k: int = 5, floor: float = 0.02) -> Recall:
        """What memory says about a message: soft tokens [H, d], attention [H, N] and the turns behind it.

        evidence: at most `k` turns that got at least the share `floor` of the attention, most of it first; of several reads each
        counts half of the one before. A user without a history has N = 0 and no evidence. Raises InvalidInputError.
        """
        self._open()
        check_user_id(user_id)
        return self._recall(user_id, _query(check_dialogue(message)), check_count(k, "k", 1), check_number(floor, "floor"))

    @traced("recall", lambda recall: {"slots": recall.slot_weights.shape[1], "evidence": len(recall.evidence)})
    @torch.inference_mode()
    def _recall(self, user_id: str, query: str, k: int = 5, floor: float = 0.02) -> Recall:
        _, slots = self._memory(user_id)
        device = self.backbone.device
        encoded = self.weights.queries([self.backbone.chat.content(query)], self.backbone)
        soft, log_attention, ranked = self.weights.projection.read(encoded[:, None], slots.values[None].to(device))
        reads = ranked[0, 0, :, :, 1:].exp().mean(1).cpu()  # [R, N], the first first
        counts = 0.5 ** torch.arange(len(reads))
        return Recall(soft[0, 0], log_attention[0, 0, :, 1:].exp().cpu(), self._evidence(user_id, counts / counts.sum() @ reads, slots.turns, k, floor))

    def slots(self, user_id: str) -> Slots:
        """All slots of a user as they are read: at most `num_slots`, with the turns behind each. None for a user without a history."""
        self._open()
        check_user_id(user_id)
        return self._memory(user_id)[1]

    def explain(self, user_id: str, message: str | Sequence[Message]) -> Explanation:
        """What each soft token for a message says, and the turns behind it; `print` it. Raises InvalidInputError."""
        recall = self.recall(user_id, message)
        return explain_recall(_query(check_dialogue(message)), recall, self._memory(user_id)[1], self.backbone)

    def _evidence(self, user_id: str, weights: Tensor, owners: Sequence[Sequence[str]], k: int, floor: float) -> list[Evidence]:
        shares: dict[str, float] = {}
        for behind, weight in zip(owners, weights.tolist(), strict=True):
            for turn in behind:
                shares[turn] = shares.get(turn, 0.0) + weight / len(behind)
        best = sorted((item for item in shares.items() if item[1] >= floor), key=lambda item: -item[1])[:k]
        turns = {turn.id: turn for turn in self.store.turns(user_id, turn_ids=[turn for turn, _ in best])} if best else {}
        return [Evidence(turns[turn], weight) for turn, weight in best if turn in turns]

    def prompt(
        self,
        user_id: str | None,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = False,
        room: int = 0,
    ) -> tuple[Tensor, Recall | None]:
        """The embedded prompt [T, d] of a question: the user's soft tokens and the messages in the chat format.

        user_id None: the bare backbone, without memory. `room` tokens are left free for the answer; messages too long
        for the window lose their oldest turns, and one that does not fit alone raises InvalidInputError.
        """
        self._open()
        if user_id is not None:
            check_user_id(user_id)
        kept = check_dialogue(messages)
        recall = None if user_id is None else self._recall(user_id, _query(kept))
        soft = self.weights.config.heads if recall else 0
        limit = self.backbone.window - soft - room
        ids = self.backbone.chat.render(kept, tools=tools, enable_thinking=enable_thinking)
        while len(ids) > limit:
            kept = self._shorten(kept, len(ids) - limit)
            if not kept:
                raise InvalidInputError(
                    f"the message takes {len(ids)} tokens and only {limit} fit the window of {self.backbone.window} beside {soft} soft tokens "
                    f"and {room} for the answer; shorten it, or `remember` it and ask about it"
                )
            ids = self.backbone.chat.render(kept, tools=tools, enable_thinking=enable_thinking)
        embeds = self.backbone.embed(ids)
        if recall is None:
            return embeds, None
        split = 0 if self.weights.config.placement == "prefix" else len(ids) - len(self.backbone.chat.render(kept[-1:], enable_thinking=enable_thinking))
        return torch.cat([embeds[:split], recall.soft_prompt.to(embeds.dtype), embeds[split:]]), recall

    def _shorten(self, messages: Sequence[Message], excess: int) -> list[Message]:
        """Messages without as many of the oldest turns as make up `excess` tokens; empty if none can go."""
        kept = list(messages)
        while excess > 0:
            oldest = next((index for index, message in enumerate(kept[:-1]) if message["role"] != "system"), None)
            if oldest is None:
                return kept if len(kept) < len(messages) else []
            gone = kept.pop(oldest)
            excess -= len(self.backbone.chat.turn(gone["role"], self.backbone.chat.content(str(gone.get("content") or "")))[0])
        return kept

    @traced("ask", lambda answer: _tokens(answer.usage))
    def ask(self, user_id: str | None, messages: str | Sequence[Message], **options: Unpack[AskOptions]) -> Answer:
        """Answer with the user's memory as soft tokens: no history text enters the prompt, and nothing is stored.

        messages: one text, or a list of messages of which the last one is answered. user_id None: the bare backbone.
        Raises InvalidInputError, EngineClosedError.
        """
        begin = time.perf_counter()
        embeds, recall, tokens, wanted = self._generation(user_id, messages, options)
        search = time.perf_counter()
        ids: list[int] = []
        if wanted.tools or wanted.enable_thinking:
            ids += tokens
            text, calls = self.backbone.tool_grammar.split(ids) if wanted.tools else (ids, ())
            said = cut_at(self.backbone.chat.decode(self.backbone.chat.after_thought(text)), wanted.stop)[0]
        else:
            said, calls = "".join(self._pieces(tokens, ids, wanted.stop)), ()
        finish: FinishReason = "tool_calls" if calls else "length" if len(ids) >= wanted.max_new_tokens else "stop"
        usage = self._usage(embeds, recall, len(ids), begin, search)
        return Answer(said.strip(), recall.evidence if recall else (), usage, calls, finish)

    def stream(self, user_id: str | None, messages: str | Sequence[Message], **options: Unpack[AskOptions]) -> AnswerStream:
        """The text of `ask`'s answer, piece by piece. Pieces never split a character; tool calls are for `ask`."""
        begin = time.perf_counter()
        embeds, recall, tokens, wanted = self._generation(user_id, messages, options)
        search = time.perf_counter()
        ids: list[int] = []

        def usage() -> Usage:
            return self._usage(embeds, recall, len(ids), begin, search)

        pieces = traced_pieces("stream", self._pieces(tokens, ids, wanted.stop), lambda: _tokens(usage()))
        return AnswerStream(pieces, recall.evidence if recall else (), usage)

    def _generation(self, user_id: str | None, messages: str | Sequence[Message], options: AskOptions) -> tuple[Tensor, Recall | None, Iterator[int], Options]:
        """The embedded prompt, what memory gave to it, and the answer's tokens as they come."""
        wanted = Options(**options)
        tools = check_tools(wanted.tools) if wanted.tools and wanted.tool_choice != "none" else None
        constraint = self.backbone.tool_grammar.constraint(tools, wanted.tool_choice or "auto", thinking=wanted.enable_thinking) if tools else None
        embeds, recall = self.prompt(user_id, messages, tools=tools, enable_thinking=wanted.enable_thinking, room=wanted.max_new_tokens)
        tokens = self.backbone.generate(
            embeds,
            max_new_tokens=wanted.max_new_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            seed=wanted.seed,
            constraint=constraint,
        )
        return embeds, recall, tokens, wanted

    def _usage(self, embeds: Tensor, recall: Recall | None, output: int, begin: float, search: float) -> Usage:
        soft = len(recall.soft_prompt) if recall else 0
        return Usage(
            prompt_tokens=len(embeds) - soft,
            soft_tokens=soft,
            output_tokens=output,
            kv_bytes=len(embeds) * self.backbone.kv_bytes_per_token,
            search_ms=(search - begin) * 1000,
            total_ms=(time.perf_counter() - begin) * 1000,
        )

    def _pieces(self, tokens: Iterator[int], ids: list[int], stop: Sequence[str] | None) -> Iterator[str]:
        """Text of tokens as they come, up to a stop text; `ids` takes the tokens."""
        said = ""
        for token in tokens:
            self._open()
            ids.append(token)
            text, stopped = cut_at(self.backbone.chat.decode(ids).lstrip(), stop)
            ready = text if stopped else text[: len(text) - held_back(text, stop)]
            if stopped or not text.endswith("\ufffd"):
                if len(ready) > len(said):
                    yield ready[len(said) :]
                    said = ready
                if stopped:
                    return
        rest = self.backbone.chat.decode(ids).lstrip()[len(said) :]
        if rest:
            yield rest

    # ---------------------------------------------------------------- refine

    def consolidate(self, user_id: str, recipe: ConsolidationRecipe | None = None, *, on_step: Callable[[int], None] | None = None) -> ConsolidationReport:
        """Refine a user's slots until the soft path answers as the history in context would.

        The backbone asks about each turn and answers with the history in context; the slots alone learn these answers.
        The new slots are used only if answers held out from learning get no worse; until then, and if interrupted, the
        old ones stay. What arrives meanwhile is kept. `on_step` is told the steps done. Raises UnknownUserError.
        """
        return self.consolidate_many([user_id], recipe, on_step=on_step)[0]

    @traced(
        "consolidate",
        lambda reports: {
            "users": len(reports),
            "questions": sum(report.questions for report in reports),
            "promoted": sum(report.promoted for report in reports),
        },
    )
    def consolidate_many(
        self, user_ids: Sequence[str], recipe: ConsolidationRecipe | None = None, *, on_step: Callable[[int], None] | None = None
    ) -> list[ConsolidationReport]:
        """`consolidate` for several users side by side: cheaper than one after the other."""
        self._open()
        recipe = recipe or ConsolidationRecipe()
        begin = time.perf_counter()
        memories, studies = [], []
        for user in user_ids:
            memory, asked = self._study(user, recipe)
            memories.append(memory)
            studies.append(asked)
        results = distill(memories, studies, self.weights, self.backbone, recipe, on_step)
        seconds = (time.perf_counter() - begin) / max(1, len(user_ids))
        return [replace(report, promoted=report.promoted and self._promote(memory), seconds=seconds) for memory, report in results]

    def refined(self, user_id: str) -> bool:
        """Whether all of a user's slots were refined since they were written: none is what one pass over its turns gives. Raises UnknownUserError."""
        self._open()
        self._known(user_id)
        stored = {(page.session_id, page.index): page for page in self._memory(user_id)[0].pages}
        for name, turns in self._written(user_id).items():
            session = SessionPages.of(name, turns, [], self.backbone.chat, self.weights.config)
            for index in session.numbers:
                page = stored.get((name, index))
                if page is None or torch.equal(page.slots, self._page(session, index).slots):
                    return False
        return bool(stored)

    def fit(
        self,
        user_id: str,
        examples: Sequence[tuple[str, str]],
        recipe: ConsolidationRecipe | None = None,
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> ConsolidationReport:
        """Refine a user's slots on questions with the answers they should have: the paper's supervised mode, the projection frozen.

        As with `consolidate`, a share of the examples is held out, and the new slots are used only if those get no worse; `rebuild` goes back.
        Two examples or more; what they ask must be told in the user's history, for slots hold nothing else. Raises InvalidInputError, UnknownUserError.
        """
        self._open()
        recipe = recipe or ConsolidationRecipe()
        studies = labelled(check_examples(examples), self.backbone.chat)
        self._known(user_id)
        memory, report = distill([self._memory(user_id)[0]], [studies], self.weights, self.backbone, recipe, on_step)[0]
        return replace(report, promoted=report.promoted and self._promote(memory))

    def self_study(self, user_id: str, recipe: ConsolidationRecipe | None = None) -> list[Study]:
        """The questions that `consolidate` learns from: the backbone's own about a user's turns, with its answers in context.

        Raises UnknownUserError.
        """
        self._open()
        return self._study(user_id, recipe or ConsolidationRecipe())[1]

    def _study(self, user_id: str, recipe: ConsolidationRecipe) -> tuple[UserMemory, list[Study]]:
        self._known(user_id)
        memory = self._memory(user_id)[0]
        rng = random.Random(f"{recipe.seed}/{user_id}")
        # No turn that came after these pages: if it were forgotten meanwhile, `_promote` could not know that they know of it.
        known = {turn for page in memory.pages for turn in page.turn_ids} - memory.withheld
        served = [turn for turns in self._written(user_id).values() for turn in turns if turn.id in known]
        return memory, self_study(served, self.backbone, recipe, rng)

    def _promote(self, refined: UserMemory) -> bool:
        """Put refined pages in place of those they were made from. Pages that changed meanwhile stay as they are."""
        if any(self.bounds.fault(page) for page in refined.pages):
            return False  # they would be quarantined
        user_id = refined.user_id
        known = {turn for page in refined.pages for turn in page.turn_ids}
        with self._lock:
            while True:
                current = self._memory(user_id)[0]
                if not known <= {turn for page in current.pages for turn in page.turn_ids}:
                    return False  # turns were forgotten meanwhile, and every refined page may know of them
                there = {(page.session_id, page.index): (page.slot_turns, page.tokens) for page in current.pages}
                same = [page for page in refined.pages if there.get((page.session_id, page.index)) == (page.slot_turns, page.tokens)]
                if self.store.put_pages(user_id, same, version=current.version, **self._fingerprints):
                    self._cache.pop(user_id, None)
                    return bool(same)

    # ---------------------------------------------------------------- look, close (forget, expire, export, restore, doctor: upkeep.py)

    def turns(self, user_id: str, *, session_id: str | None = None) -> list[Turn]:
        """A user's turns in order; empty for a user without a history."""
        self._open()
        check_user_id(user_id)
        return self.store.turns(user_id, session_id=session_id)

    def users(self) -> list[str]:
        """Ids of all users with a history."""
        self._open()
        return self.store.users()

    def _drop_cache(self, user_id: str | None = None) -> None:
        with self._lock:
            if user_id is None:
                self._cache.clear()
            else:
                self._cache.pop(user_id, None)

    def _open(self) -> None:
        if self._closed:
            raise EngineClosedError("this engine was closed; open another with LPM.from_pretrained()")

    def close(self) -> None:
        """Close the store. Later calls raise EngineClosedError; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._cache.clear()
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- async twins

    async def aremember(self, user_id: str, messages: str | Message | Sequence[Message], **options: Any) -> list[str]:
        """`remember` without blocking the event loop."""
        return await asyncio.to_thread(partial(self.remember, user_id, messages, **options))

    async def arecall(self, user_id: str, message: str | Sequence[Message], *, k: int = 5, floor: float = 0.02) -> Recall:
        """`recall` without blocking the event loop."""
        return await asyncio.to_thread(partial(self.recall, user_id, message, k=k, floor=floor))

    async def aask(self, user_id: str | None, messages: str | Sequence[Message], **options: Unpack[AskOptions]) -> Answer:
        """`ask` without blocking the event loop."""
        return await asyncio.to_thread(partial(self.ask, user_id, messages, **options))

    async def astream(self, user_id: str | None, messages: str | Sequence[Message], **options: Unpack[AskOptions]) -> AsyncIterator[str]:
        """`stream` without blocking the event loop."""
        pieces = await asyncio.to_thread(partial(self.stream, user_id, messages, **options))
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    async def aconsolidate(self, user_id: str, recipe: ConsolidationRecipe | None = None) -> ConsolidationReport:
        """`consolidate` without blocking the event loop."""
        return await asyncio.to_thread(self.consolidate, user_id, recipe)

    async def afit(self, user_id: str, examples: Sequence[tuple[str, str]], recipe: ConsolidationRecipe | None = None) -> ConsolidationReport:
        """`fit` without blocking the event loop."""
        return await asyncio.to_thread(self.fit, user_id, examples, recipe)

    async def aturns(self, user_id: str, *, session_id: str | None = None) -> list[Turn]:
        """`turns` without blocking the event loop."""
        return await asyncio.to_thread(partial(self.turns, user_id, session_id=session_id))


def embedded_folder() -> Path:
    """Folder of the embedded default: `backbone` and `memory`. Raises ModelNotFoundError if it is not in this install."""
    folder = Path(str(resources.files("lpm_core") / "pretrained"))
    if not (folder / "backbone" / "config.json").exists():
        raise ModelNotFoundError(
            f"the embedded default is missing from {str(folder)!r}; make it with `make train-embedded`, or pass a model and its memory weights"
        )
    return folder


def _tokens(usage: Usage) -> dict[str, int]:
    """The counts of an answer's cost."""
    return {"prompt_tokens": usage.prompt_tokens, "soft_tokens": usage.soft_tokens, "output_tokens": usage.output_tokens}


def _query(messages: Sequence[Message]) -> str:
    """The current message, which memory is read for: the last one of the user."""
    return next((str(message["content"]) for message in reversed(messages) if message["role"] == "user"), str(messages[-1].get("content") or "-"))
