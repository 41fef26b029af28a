"""`Memory`: Mem0's client API (OSS 2.x, and the older call styles) over LPM or a Chroma RAG memory."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, Self

from lpm_core.exceptions import InvalidInputError
from lpm_core.settings import LPMSettings
from lpm_integrations.mem0.arguments import check_count, check_metadata, check_threshold, drop_legacy, owner_of, said_at, spoken
from lpm_integrations.mem0.backends import Backend, LPMBackend, RAGBackend
from lpm_integrations.mem0.catalogue import ENTITIES, Catalogue, Record
from lpm_integrations.mem0.filters import check_filters, matches, scope_of

if TYPE_CHECKING:
    from lpm_core.engine import LPM
    from lpm_integrations.chroma.embedding import Embedding

__all__ = ["Memory"]

_TOP_K = 20
_MEM0_CONFIG = ("vector_store", "llm", "embedder", "graph_store", "reranker", "history_db_path", "version", "custom_instructions")
_CONFIG = ("backend", "path", "model", "memory")


class Memory:
    """What was said, kept per user, agent or run, found again by meaning; ids hold across restarts.

    backend: "lpm" (turns of an engine's store, ranked by the read attention) or "rag" (Chroma, ranked by cosine). path: a
    folder for everything (None: the user's data dir). model, memory: Qwen3 and memory weights of the "lpm" backend (None:
    the embedded default). engine: use this engine and its store instead, and leave it open. embedding: for "rag".

    No language model rewrites what is added: each message of a user or an assistant is one memory, word for word, whatever
    `infer` says. Deleting a memory takes its text out of the history too. Thread-safe; also a context manager.
    Raises InvalidInputError, StoreError, ModelError, MissingDependencyError; EngineClosedError after `close()`.
    """

    def __init__(
        self,
        backend: Literal["lpm", "rag"] = "lpm",
        path: str | Path | None = None,
        *,
        model: str | None = None,
        memory: str | None = None,
        engine: LPM | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        if backend not in ("lpm", "rag"):
            raise InvalidInputError(f"backend {backend!r} is neither 'lpm' nor 'rag'")
        folder = LPMSettings().home if path is None else Path(path).expanduser()
        self._lock = RLock()
        self._catalogue = Catalogue(folder / f"mem0-{backend}.db")
        try:
            self._backend: Backend = (
                RAGBackend(folder / "rag", embedding) if backend == "rag" else LPMBackend(engine or _engine(folder, path, model, memory), owned=engine is None)
            )
        except BaseException:
            self._catalogue.close()
            raise

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A client from {"backend", "path", "model", "memory"}, all optional.

        A config of Mem0's own is taken as well: the path of its vector store counts, the rest has no counterpart here.
        Raises InvalidInputError for a key that is neither.
        """
        if not isinstance(config, Mapping):
            raise InvalidInputError(f"config {config!r} is not a mapping: pass for example {{'backend': 'lpm'}}")
        unknown = [key for key in config if key not in (*_CONFIG, *_MEM0_CONFIG)]
        if unknown:
            raise InvalidInputError(f"config has the unknown key {unknown[0]!r}; keys are {', '.join(_CONFIG)}, and those of Mem0's own config")
        values = {key: config[key] for key in _CONFIG if config.get(key) is not None}
        store = (config.get("vector_store") or {}).get("config") or {}
        if store.get("path"):
            values.setdefault("path", store["path"])
        return cls(**values)

    # ---------------------------------------------------------------- write

    def add(
        self,
        messages: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str],
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        infer: bool = True,  # noqa: ARG002 (part of the API; nothing is inferred)
        timestamp: int | float | str | datetime | None = None,
        **legacy: Any,
    ) -> Any:
        """Keep messages; durable when it returns: {"results": [{"id", "memory", "event": "ADD", "role"}, …]}.

        A string is one message of the user. Turns of one run, or of one metadata["timestamp"], form a session.
        """
        drop_legacy("add", legacy)
        owner = owner_of(user_id, agent_id, run_id)
        kept = check_metadata(metadata)
        said = spoken(messages)
        at = said_at(timestamp, kept)
        results: list[dict[str, Any]] = []
        if said:
            session = str(run_id or kept.get("timestamp") or "default")[:512]
            texts = [item.content for item in said]
            created = at.isoformat() if timestamp is not None else _now()
            with self._lock:
                refs = self._backend.add(owner, [(item.role, item.content) for item in said], session, at)
                records = [
                    Record(str(uuid.uuid4()), ref, owner, user_id, agent_id, run_id, item.role, item.actor_id, session, at.isoformat(), created, None, kept)
                    for ref, item in zip(refs, said, strict=True)
                ]
                try:
                    self._catalogue.add(records, texts)
                except BaseException:
                    self._backend.remove(owner, refs)
                    raise
            results = [{"id": record.id, "memory": text, "event": "ADD", "role": record.role} for record, text in zip(records, texts, strict=True)]
        return _shaped(results, legacy)

    def update(self, memory_id: str, text: str | None = None, metadata: Mapping[str, Any] | None = None, *, data: str | None = None) -> dict[str, str]:
        """Give a memory another text, other metadata, or both; its id stays. `data` is the older name of `text`.

        In the backend the old text is deleted and the new one comes last in its session. Raises InvalidInputError for an unknown id.
        """
        wanted = data if text is None else text
        if wanted is None and metadata is None:
            raise InvalidInputError("update was given neither a text nor metadata")
        new = None if wanted is None else _one_text(wanted)
        with self._lock:
            record = self._known(memory_id)
            old = self._texts([record]).get(record.id, "")
            kept = record.metadata if metadata is None else check_metadata(metadata)
            changed = replace(record, metadata=kept, updated_at=_now())
            if new is None or new == old:
                self._catalogue.change(changed, old, old)
            else:
                [ref] = self._backend.add(record.owner, [(record.role, new)], record.session, datetime.fromisoformat(record.said_at))
                try:
                    self._catalogue.change(replace(changed, ref=ref), old, new)
                except BaseException:
                    self._backend.remove(record.owner, [ref])
                    raise
                self._backend.remove(record.owner, [record.ref])
        return {"message": "Memory updated successfully!"}

    def delete(self, memory_id: str) -> dict[str, str]:
        """Delete one memory. Raises InvalidInputError for an unknown id."""
        with self._lock:
            self._remove([self._known(memory_id)])
        return {"message": "Memory deleted successfully!"}

    def delete_all(self, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None, **legacy: Any) -> dict[str, str]:
        """Delete the memories that belong to all the given ids. Raises InvalidInputError if none is given: `reset` deletes everything."""
        drop_legacy("delete_all", legacy)
        if user_id is None and agent_id is None and run_id is None:
            raise InvalidInputError("delete_all needs user_id, agent_id or run_id, so that nobody's memories go by accident; reset() deletes all of them")
        with self._lock:
            self._remove(self._find(None, user_id, agent_id, run_id))
        return {"message": "Memories deleted successfully!"}

    def reset(self) -> dict[str, str]:
        """Delete every memory that was added through this client's folder, and its history."""
        with self._lock:
            self._remove(self._catalogue.all())
            self._catalogue.clear()
        return {"message": "Memory reset successfully!"}

    # ---------------------------------------------------------------- read

    def search(
        self,
        query: str,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        *,
        top_k: int | None = None,
        **legacy: Any,
    ) -> Any:
        """The memories of a scope nearest to a query, best first: {"results": [{"id", "memory", "score", "metadata", "created_at", …}, …]}.

        score: cosine similarity ("rag") or share of the read attention ("lpm"). threshold: the least score that counts.
        """
        drop_legacy("search", legacy)
        query = _one_text(query, "query")
        count = check_count((top_k, limit), _TOP_K) or _TOP_K
        floor = check_threshold(threshold)
        records = self._find(filters, user_id, agent_id, run_id)
        owned: dict[str, dict[str, Record]] = {}
        for record in records:
            owned.setdefault(record.owner, {})[record.ref] = record
        scored: list[tuple[Record, float]] = []
        for owner, mine in owned.items():
            # Where the scope is a part of the owner's texts, all are ranked first: a filter on a list already cut would lose some.
            crowd = self._backend.count(owner)
            found = self._backend.search(owner, query, count if crowd == len(mine) else crowd)
            scored += [(mine[ref], score) for ref, score in found if ref in mine and (floor is None or score >= floor)][:count]
        scored = sorted(scored, key=lambda item: -item[1])[:count]
        texts = self._texts([record for record, _ in scored])
        return _shaped([_shown(record, texts[record.id], score) for record, score in scored if record.id in texts], legacy)

    def get(self, memory_id: str) -> dict[str, Any] | None:
        """One memory; None if there is none with this id."""
        record = self._catalogue.get(_one_text(memory_id, "memory id"))
        texts = self._texts([record]) if record else {}
        return _shown(record, texts[record.id]) if record and record.id in texts else None

    def get_all(
        self,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
        *,
        top_k: int | None = None,
        **legacy: Any,
    ) -> Any:
        """The memories of a scope in the order they were added, all or the first `limit`: {"results": […]}."""
        drop_legacy("get_all", legacy)
        records = self._find(filters, user_id, agent_id, run_id)[: check_count((top_k, limit), None)]
        texts = self._texts(records)
        return _shaped([_shown(record, texts[record.id]) for record in records if record.id in texts], legacy)

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """What happened to a memory, oldest first; empty for an unknown id. Of a deleted one the times stay and the texts do not."""
        return [
            {
                "id": f"{memory_id}/{number}",
                "memory_id": memory_id,
                "old_memory": event.old_memory,
                "new_memory": event.new_memory,
                "event": event.event,
                "created_at": event.at,
                "updated_at": event.at if event.event == "UPDATE" else None,
                "is_deleted": event.event == "DELETE",
            }
            for number, event in enumerate(self._catalogue.events(_one_text(memory_id, "memory id")))
        ]

    def update_project(self, **settings: Any) -> dict[str, str]:
        """Taken for harnesses of Mem0's platform, which set instructions for its language model; there is none here, so it has no effect."""
        drop_legacy("update_project", settings)
        return {"message": "Nothing to update: memories are kept word for word."}

    def close(self) -> None:
        """Let go of the files. Later calls raise EngineClosedError; closing twice does nothing."""
        with self._lock:
            self._catalogue.close()
            self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- inside

    def _find(self, filters: Mapping[str, Any] | None, user_id: str | None, agent_id: str | None, run_id: str | None) -> list[Record]:
        given = {name: value for name, value in zip(ENTITIES, (user_id, agent_id, run_id), strict=True) if value is not None}
        if given:
            owner_of(user_id, agent_id, run_id)
        wanted: dict[str, Any] = {"AND": [given, check_filters(filters)]} if filters is not None else given
        scope = scope_of(wanted)
        return [record for record in self._catalogue.find(scope) if matches(record, wanted)]

    def _texts(self, records: Sequence[Record]) -> dict[str, str]:
        """Texts by memory id."""
        refs: dict[str, list[str]] = {}
        for record in records:
            refs.setdefault(record.owner, []).append(record.ref)
        found = {(owner, ref): text for owner, mine in refs.items() for ref, text in self._backend.texts(owner, mine).items()}
        return {record.id: found[record.owner, record.ref] for record in records if (record.owner, record.ref) in found}

    def _remove(self, records: Sequence[Record]) -> None:
        owned: dict[str, list[str]] = {}
        for record in records:
            owned.setdefault(record.owner, []).append(record.ref)
        for owner, refs in owned.items():
            self._backend.remove(owner, refs)
        self._catalogue.remove(records, _now())

    def _known(self, memory_id: str) -> Record:
        record = self._catalogue.get(_one_text(memory_id, "memory id"))
        if record is None:
            raise InvalidInputError(f"there is no memory {memory_id!r}; get_all(user_id=…) lists those there are")
        return record


def _engine(folder: Path, path: str | Path | None, model: str | None, memory: str | None) -> LPM:
    from lpm_integrations.engines import shared_engine

    url = LPMSettings().store_url if path is None else f"sqlite:///{(folder / 'memory.db').as_posix()}"
    return shared_engine(model, memory, "sqlite://").on_store(url)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _one_text(value: object, what: str = "text") -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"the {what} is {value!r}: pass a string that is not empty")
    return value


def _shaped(results: list[dict[str, Any]], legacy: Mapping[str, Any]) -> Any:
    """{"results": …}, or the bare list of Mem0's first output format."""
    return results if legacy.get("output_format") == "v1.0" else {"results": results}


def _shown(record: Record, text: str, score: float | None = None) -> dict[str, Any]:
    owners = {name: value for name in (*ENTITIES, "actor_id") if (value := getattr(record, name)) is not None}
    return {
        "id": record.id,
        "memory": text,
        "hash": hashlib.sha256(text.encode()).hexdigest(),
        "metadata": record.metadata,
        **({} if score is None else {"score": score}),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "role": record.role,
        **owners,
    }
