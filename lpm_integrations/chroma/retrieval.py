"""The one retrieval core behind every RAG memory: texts of users in a persistent Chroma collection."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from lpm_core.exceptions import EngineClosedError, InvalidInputError, LPMError, MissingDependencyError, StoreCorruptError, StoreUnavailableError
from lpm_core.settings import LPMSettings
from lpm_integrations.chroma.embedding import Embedding, MiniLMEmbedding
from lpm_integrations.chroma.parts import PARENT, Parts

if TYPE_CHECKING:
    from chromadb import Collection
    from chromadb.api import ClientAPI

__all__ = ["ChromaRetrieval", "Document", "Hit", "Value"]

Value = str | int | float | bool
"""What a metadata value may be."""

T = TypeVar("T")

_log = logging.getLogger(__name__)

_FEW = 256  # texts of a user that are compared one by one: among many users' the index misses some of so few
_PATIENCE = 5.0  # seconds to wait for a busy file
_BATCH = 5000  # Chroma takes 5461 at most
_USER, _ORDER = "user_id", "lpm_order"
_INT64 = 2**63
_INDEX: Any = {"hnsw": {"space": "cosine", "ef_search": 400, "ef_construction": 200, "max_neighbors": 32}}  # by default 1 % of a user's best 30 are missed
_OPENING = RLock()  # Chroma counts the clients of a folder, not safely across threads
_WAY_OUT = "name a folder that can be written, or move this one away to start anew"


@dataclass(frozen=True)
class Document:
    """One stored text."""

    id: str
    text: str
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """One retrieved text; `score` is its cosine similarity with the query."""

    id: str
    text: str
    score: float
    metadata: Mapping[str, Value] = field(default_factory=dict)


class ChromaRetrieval:
    """Texts of users, found again by meaning. A call reads and changes its own user's texts only.

    `path` is a folder, by default `rag` in the user's data dir; several objects of one process may share it, several
    processes should not (their vector indexes go stale). They share a server instead: `client` is a `chromadb.HttpClient`
    (or any other client), which stays the caller's to close. With `chunk_size` (characters) a search looks at chunks of
    the texts: its hits are chunks, with the ids of their texts; None: as the collection was made. `embedding` is anything with embed_documents and embed_query;
    a collection keeps to one embedding. Thread-safe; also a context manager.
    Raises MissingDependencyError without chromadb, StoreUnavailableError or StoreCorruptError where the folder cannot be
    used, InvalidInputError for a bad collection name, and for both a path and a client.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        client: ClientAPI | None = None,
        embedding: Embedding | None = None,
        chunk_size: int | None = None,
        collection: str = "lpm_rag",
    ) -> None:
        if client is not None and path is not None:
            raise InvalidInputError(f"both a path ({path}) and a client: the texts are in one place, so leave one out")
        self.path = None if client is not None else (LPMSettings().home / "rag" if path is None else Path(path)).expanduser().resolve()
        self._place = "the Chroma server" if self.path is None else str(self.path)
        self._embedding: Embedding = MiniLMEmbedding() if embedding is None else embedding
        self._lock = Lock()
        self._last = 0
        self._client: ClientAPI | None
        with _OPENING:
            self._client = opened = client or _open(Path(self._place))
            try:
                self._collection = self._opened(opened, collection)
                self._parts = self._opened_parts(opened, f"{collection}_parts", chunk_size)
            except LPMError:
                self.close()
                raise

    def add(
        self,
        user_id: str,
        texts: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Value | None]] | None = None,
    ) -> list[str]:
        """Store texts and return their ids: the given ones, or new ones that never change.

        An id that the user already has is replaced, in its old place. Ids of different users never meet. Metadata values
        are strings, numbers or booleans; None values are left out. Everything is checked before anything is written.
        Raises InvalidInputError for an empty user id or text, and for ids or metadata that do not fit the texts.
        """
        _check("user id", user_id)
        if isinstance(texts, str):
            raise InvalidInputError("texts is one string: pass a list of texts")
        for number, text in enumerate(texts):
            _check(f"text {number}", text)
        names = [uuid.uuid4().hex for _ in texts] if ids is None else list(ids)
        for name in names:
            _check("id", name)
        given = [_metadata({}, user_id) for _ in texts] if metadatas is None else [_metadata(item, user_id) for item in metadatas]
        if not len(names) == len(given) == len(texts):
            raise InvalidInputError(f"{len(texts)} texts, {len(names)} ids, {len(given)} metadatas: there must be as many of each")
        if len(set(names)) < len(names):
            raise InvalidInputError("an id is given twice in one call")
        first = self._places(len(names))
        for part in _batches(range(len(names))):
            batch = [texts[index] for index in part]
            keys = [_key(user_id, names[index]) for index in part]
            rows: list[dict[str, Any]] = [{**given[index], _ORDER: first + index} for index in part]
            vectors: Any = self._embedding.embed_documents(batch)
            with self._use() as collection:
                if ids is not None:
                    _replace(collection, dict(zip(keys, rows, strict=True)))
                collection.upsert(ids=keys, embeddings=vectors, documents=batch, metadatas=list(rows))
                if self._parts:
                    self._parts.put(keys, batch, rows)
        return names

    def search(self, user_id: str, query: str, k: int = 5, *, score_threshold: float | None = None) -> list[Hit]:
        """The user's k texts nearest in meaning to the query, best first; with a threshold only those whose score is not below it.

        Raises InvalidInputError for k below 1.
        """
        _check("user id", user_id)
        _check("query", query)
        if k < 1:
            raise InvalidInputError(f"k {k}: it is at least 1")
        with self._use() as collection:
            collection = self._parts.collection if self._parts else collection
            size = min(k, collection.count())
        if not size:
            return []
        vectors: Any = [self._embedding.embed_query(query)]
        with self._use():
            known = len(collection.get(where={_USER: user_id}, limit=max(k, _FEW) + 1, include=[])["ids"])
            columns: list[Any] = [[]]
            if known > _FEW:
                found: Any = collection.query(vectors, n_results=size, where={_USER: user_id}, include=["documents", "metadatas", "distances"])
                columns = [found[name][0] for name in ("ids", "documents", "distances", "metadatas")]
            if len(columns[0]) < min(k, known):
                columns = _exact(collection, user_id, vectors[0], k)
        hits = [
            Hit(_name(user_id, str(row.get(PARENT, key))), text, 1.0 - float(distance), _shown(row)) for key, text, distance, row in zip(*columns, strict=True)
        ]
        return [hit for hit in hits if score_threshold is None or hit.score >= score_threshold]

    def delete(self, user_id: str, ids: Sequence[str] | None = None) -> int:
        """Delete the user's texts with these ids, or all texts of that user; returns how many there were. Unknown ids are passed over.

        In a folder of ours the texts leave Chroma's database too, unless it is busy (then a warning is logged, and the next deletion takes
        them along); their vectors stay until Chroma drops them, and its index files are written with stray bytes of memory. A server's files are its own.
        """
        _check("user id", user_id)
        if isinstance(ids, str):
            raise InvalidInputError("ids is one string: pass a list of ids")
        deleted = self._delete(user_id, ids)
        if deleted:
            self._wipe()
        return deleted

    def _delete(self, user_id: str, ids: Sequence[str] | None) -> int:
        deleted = 0
        with self._use() as collection:
            if ids is None:
                deleted = self.count(user_id)
                if deleted:
                    collection.delete(where={_USER: user_id})
                    if self._parts:
                        self._parts.collection.delete(where={_USER: user_id})
                return deleted
            for part in _batches([_key(user_id, name) for name in ids]):
                found = collection.get(ids=list(part), include=[])["ids"]
                if found:
                    collection.delete(ids=found)
                    if self._parts:
                        self._parts.drop(found)
                deleted += len(found)
        return deleted

    def _wipe(self) -> None:
        """Take texts of deleted documents out of the database: Chroma keeps them in the queue of its writes, and in free pages."""
        if self.path is None:
            return
        try:
            with closing(sqlite3.connect(self.path / "chroma.sqlite3", timeout=_PATIENCE, isolation_level=None)) as file:
                file.execute("UPDATE embeddings_queue SET metadata = NULL WHERE metadata IS NOT NULL AND id NOT IN (SELECT embedding_id FROM embeddings)")
                file.execute("INSERT INTO embedding_fulltext_search(embedding_fulltext_search) VALUES ('optimize')")
                file.execute("VACUUM")
        except sqlite3.Error as error:
            _log.warning("deleted texts are still in the file of %s, until the next deletion: %s", self.path, error)

    def get(self, user_id: str, ids: Sequence[str]) -> list[Document]:
        """The user's texts with these ids, in the order they were added. Unknown ids are passed over."""
        _check("user id", user_id)
        if isinstance(ids, str):
            raise InvalidInputError("ids is one string: pass a list of ids")
        rows: list[Any] = []
        with self._use() as collection:
            for part in _batches([_key(user_id, name) for name in dict.fromkeys(ids)]):
                found: Any = collection.get(ids=list(part), include=["documents", "metadatas"])
                rows += zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        return [Document(_name(user_id, key), text, _shown(row)) for key, text, row in sorted(rows, key=lambda row: int(row[2][_ORDER]))]

    def get_all(self, user_id: str) -> list[Document]:
        """The user's texts in the order they were added."""
        _check("user id", user_id)
        with self._use() as collection:
            found: Any = collection.get(where={_USER: user_id}, include=["documents", "metadatas"])
        rows = sorted(zip(found["ids"], found["documents"], found["metadatas"], strict=True), key=lambda row: int(row[2][_ORDER]))
        return [Document(_name(user_id, key), text, _shown(row)) for key, text, row in rows]

    def users(self) -> list[str]:
        """The ids of all users with a text, in the order of their first one."""
        first: dict[str, int] = {}
        offset = 0
        with self._use() as collection:
            while rows := collection.get(limit=_BATCH, offset=offset, include=["metadatas"])["metadatas"]:
                for row in rows:
                    user, place = str(row[_USER]), int(str(row[_ORDER]))
                    first[user] = min(first.get(user, place), place)
                offset += len(rows)
        return sorted(first, key=first.__getitem__)

    def count(self, user_id: str) -> int:
        """How many texts the user has."""
        _check("user id", user_id)
        with self._use() as collection:
            return len(collection.get(where={_USER: user_id}, include=[])["ids"])

    def close(self) -> None:
        """Release the folder; a client of the caller's stays open. Every later call raises EngineClosedError; closing twice does nothing."""
        with _OPENING:
            client, self._client = self._client, None
            if client is not None and self.path is not None:
                _close(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _use(self) -> Iterator[Collection]:
        """The open collection; what Chroma raises while it is used becomes an error of this project."""
        from chromadb.errors import ChromaError, InvalidArgumentError
        from httpx import HTTPError

        if self._client is None:
            raise EngineClosedError(f"the retrieval on {self._place} is closed: make a new ChromaRetrieval")
        try:
            yield self._collection
        except (InvalidArgumentError, ValueError, TypeError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(f"{error} (a collection keeps to one embedding and to plain metadata)") from error
        except (ChromaError, HTTPError) as error:
            raise StoreUnavailableError(f"cannot use {self._place} ({error}): {self._way_out}") from error

    @property
    def _way_out(self) -> str:
        return "see that it runs and can be reached" if self.path is None else _WAY_OUT

    def _opened(self, client: ClientAPI, name: str) -> Collection:
        """The collection, made if it does not exist."""
        from chromadb.errors import ChromaError, InvalidArgumentError
        from httpx import HTTPError

        try:
            return client.get_or_create_collection(name, embedding_function=None, configuration=_INDEX)
        except InvalidArgumentError as error:
            raise InvalidInputError(f"collection {name!r}: {error}") from error
        except (ChromaError, HTTPError) as error:
            raise StoreUnavailableError(f"cannot open {self._place} ({error}): {self._way_out}") from error

    def _opened_parts(self, client: ClientAPI, name: str, chunk_size: int | None) -> Parts | None:
        """The collection's chunks, if it has any or shall have."""
        from chromadb.errors import ChromaError, NotFoundError
        from httpx import HTTPError

        try:
            try:
                found = client.get_collection(name, embedding_function=None)
            except NotFoundError:
                if chunk_size is None:
                    return None
                found = client.create_collection(name, embedding_function=None, configuration=_INDEX, metadata=Parts.metadata(chunk_size))
            parts = Parts(found, chunk_size, self._embedding)
            if not found.count() and (whole := cast(Any, self._collection.get(include=["documents", "metadatas"])))["ids"]:
                parts.put(whole["ids"], whole["documents"], whole["metadatas"])
        except (ChromaError, HTTPError) as error:
            raise StoreUnavailableError(f"cannot open {self._place} ({error}): {self._way_out}") from error
        return parts

    def _places(self, count: int) -> int:
        """The first of `count` places in the order of insertion. The clock gives it, so it holds across objects and restarts."""
        with self._lock:
            first = max(time.time_ns(), self._last + 1)
            self._last = first + count - 1
        return first


def _open(path: Path) -> ClientAPI:
    try:
        import chromadb
        from chromadb.config import Settings
        from chromadb.errors import ChromaError
    except ImportError as error:
        raise MissingDependencyError(f'{error.name} is not installed: pip install "latent-personal-memory[chroma]"') from error

    try:
        path.mkdir(parents=True, exist_ok=True)
        _check_database(path / "chroma.sqlite3")
        return chromadb.PersistentClient(path=str(path), settings=Settings(anonymized_telemetry=False))
    except (OSError, ValueError, AttributeError, ChromaError) as error:  # AttributeError: a folder left half-open
        raise StoreUnavailableError(f"cannot open {path} ({error}): {_WAY_OUT}") from error


def _exact(collection: Collection, user_id: str, vector: list[float], k: int) -> list[Any]:
    """What the index should have found: in its graph some of a user's texts can be out of reach behind those of others."""
    import numpy as np

    found: Any = collection.get(where={_USER: user_id}, include=["documents", "embeddings", "metadatas"])
    query, vectors = np.asarray(vector), np.asarray(found["embeddings"])  # [d], [N, d]
    if not len(vectors):
        return [[], [], [], []]
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    distances = 1.0 - vectors @ query / np.maximum(lengths, np.finfo(np.float32).tiny)
    best = np.argsort(distances, kind="stable")[:k]
    return [[column[index] for index in best] for column in (found["ids"], found["documents"], distances, found["metadatas"])]


def _close(client: ClientAPI) -> None:
    """Give the client back; Chroma lets go of the folder with the last one. Its early 1.x versions have no such call."""
    close = getattr(client, "close", None)
    if close is not None:
        close()


def _check_database(database: Path) -> None:
    """Find damage before Chroma does: a folder that it failed to open stays half-open in the process."""
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        raise StoreUnavailableError(f"cannot read {database} ({error}): {_WAY_OUT}") from error
    except sqlite3.DatabaseError as error:
        raise StoreCorruptError(f"{database} is damaged ({error}): {_WAY_OUT}") from error


def _replace(collection: Collection, rows: Mapping[str, dict[str, Any]]) -> None:
    """Give the rows of keys that exist their old place, and let their old metadata go: an upsert would merge it."""
    found: Any = collection.get(ids=list(rows), include=["metadatas"])
    for key, old in zip(found["ids"], found["metadatas"], strict=True):
        rows[key].update({name: None for name in old if name not in rows[key]})
        rows[key][_ORDER] = old[_ORDER]


def _check(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} {value!r} is not a string")
    if not value.strip():
        raise InvalidInputError(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{what} {value[:40]!r} has half a surrogate pair and cannot be stored as UTF-8") from error


def _metadata(given: Mapping[str, Value | None], user_id: str) -> dict[str, Value]:
    """The metadata as stored: without None values, with the user."""
    for name, value in given.items():
        _check("metadata key", name)
        if name in (_ORDER, PARENT) or (name == _USER and value != user_id):
            raise InvalidInputError(f"metadata key {name!r} is set by this class: leave it out")
        if isinstance(value, str):
            if value:
                _check(f"metadata {name!r}", value + ".")
        elif not (value is None or (isinstance(value, int) and -_INT64 <= value < _INT64) or (isinstance(value, float) and math.isfinite(value))):
            raise InvalidInputError(f"metadata {name!r} is {value!r}: a string, a boolean, a finite number or a 64-bit integer can be stored")
    return {**{name: value for name, value in given.items() if value is not None}, _USER: user_id}


def _shown(row: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in row.items() if name not in (_ORDER, PARENT)}


def _key(user_id: str, name: str) -> str:
    """Chroma's id of a text: the same name under two users gives two of them."""
    return f"{len(user_id)}:{user_id}:{name}"


def _name(user_id: str, key: str) -> str:
    return key.removeprefix(_key(user_id, ""))


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
