"""Where memories live: turns of an LPM engine's store, or documents of a Chroma retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lpm_core.validation import check_messages
from lpm_integrations.chroma.embedding import Embedding

if TYPE_CHECKING:
    from lpm_core.engine import LPM

__all__ = ["Backend", "LPMBackend", "RAGBackend"]


class Backend(Protocol):
    """What the client needs of a memory. `owner` is a user of the memory; a `ref` is its id of one text."""

    def add(self, owner: str, said: Sequence[tuple[str, str]], session: str, at: datetime) -> list[str]:
        """Store (role, text) pairs of one session; durable when it returns."""
        ...

    def texts(self, owner: str, refs: Sequence[str]) -> dict[str, str]:
        """The texts behind refs; those that are gone are left out."""
        ...

    def count(self, owner: str) -> int:
        """How many texts the owner has."""
        ...

    def search(self, owner: str, query: str, k: int) -> list[tuple[str, float]]:
        """Refs and scores (0 to 1, more is nearer) of at most k texts, best first."""
        ...

    def remove(self, owner: str, refs: Sequence[str]) -> None:
        """Delete texts."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class LPMBackend:
    """Turns in an engine's store; a search ranks them by their share of the read attention."""

    def __init__(self, engine: LPM, *, owned: bool) -> None:
        self.engine, self._owned = engine, owned

    def add(self, owner: str, said: Sequence[tuple[str, str]], session: str, at: datetime) -> list[str]:
        """Remember the texts as turns of one session."""
        return self.engine.remember(owner, [{"role": role, "content": text} for role, text in said], session_id=session, at=at)

    def texts(self, owner: str, refs: Sequence[str]) -> dict[str, str]:
        """The content of turns."""
        return {turn.id: turn.content for turn in self.engine.store.turns(owner, turn_ids=refs)}

    def count(self, owner: str) -> int:
        """How many turns the owner has."""
        return len(self.engine.turns(owner))

    def search(self, owner: str, query: str, k: int) -> list[tuple[str, float]]:
        """The turns that the attention points to, whatever their share."""
        return [(item.turn.id, item.weight) for item in self.engine.recall(owner, query, k=k, floor=0.0).evidence]

    def remove(self, owner: str, refs: Sequence[str]) -> None:
        """Forget turns; an owner without any other turn is forgotten whole."""
        turns = {turn.id for turn in self.engine.turns(owner)}
        if turns and turns <= set(refs):
            self.engine.forget_user(owner)
        elif turns:
            self.engine.forget(owner, turn_ids=refs)

    def close(self) -> None:
        """Close the engine if it was made for this client."""
        if self._owned:
            self.engine.close()


class RAGBackend:
    """Documents in a Chroma collection; a search ranks them by cosine similarity."""

    def __init__(self, path: Path | None, embedding: Embedding | None) -> None:
        from lpm_integrations.chroma.retrieval import ChromaRetrieval

        self.retrieval = ChromaRetrieval(path, embedding=embedding, collection="lpm_mem0")

    def add(self, owner: str, said: Sequence[tuple[str, str]], session: str, at: datetime) -> list[str]:
        """Embed and store the texts."""
        checked = check_messages([{"role": role, "content": text} for role, text in said], session)
        row = {"session": session, "at": at.isoformat()}
        return self.retrieval.add(owner, [text for _, text, _ in checked], metadatas=[{**row, "role": role} for role, _, _ in checked])

    def texts(self, owner: str, refs: Sequence[str]) -> dict[str, str]:
        """The texts of documents."""
        return {document.id: document.text for document in self.retrieval.get(owner, refs)}

    def count(self, owner: str) -> int:
        """How many documents the owner has."""
        return self.retrieval.count(owner)

    def search(self, owner: str, query: str, k: int) -> list[tuple[str, float]]:
        """The documents nearest in meaning."""
        return [(hit.id, hit.score) for hit in self.retrieval.search(owner, query, k=k)]

    def remove(self, owner: str, refs: Sequence[str]) -> None:
        """Delete documents."""
        self.retrieval.delete(owner, refs)

    def close(self) -> None:
        """Close the collection."""
        self.retrieval.close()
