"""RAGMemory: a Chroma RAG memory with the face of LPMMemory, for comparison."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import Field, PrivateAttr

from lpm_core.exceptions import InvalidInputError
from lpm_core.validation import check_user_id
from lpm_integrations.chroma.embedding import Embedding
from lpm_integrations.chroma.retrieval import ChromaRetrieval
from lpm_integrations.evidence import retrieved_lines
from lpm_integrations.llama_index.base import PersonalMemory
from lpm_integrations.llama_index.messages import StoredTurn

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from lpm_integrations.llama_index.llm import LPMLLM

__all__ = ["RAGMemory"]


@dataclass(frozen=True)
class _Adapted:
    """A LlamaIndex embedding with the two calls that the retrieval makes."""

    embedding: BaseEmbedding

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embedding.get_text_embedding_batch(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.embedding.get_query_embedding(text)


class RAGMemory(PersonalMemory):
    """The same memory interface over Chroma: every turn a document, the `k` nearest that are not shown as evidence.

    path: folder of the Chroma database (None: in LPM_HOME); or client: a `chromadb.HttpClient`. chunk_size: turns
    longer than so many characters are found, and given, in chunks. score_threshold: those whose cosine similarity with the question is lower are left out. embedding: any LlamaIndex embedding, or any object
    with embed_documents and embed_query (None: MiniLM). Neither client nor embedding travels in `to_dict`: set the fields
    again after `from_dict`. Raises InvalidInputError, StoreError, MissingDependencyError.
    """

    path: str | None = None
    k: int = Field(5, ge=1)
    chunk_size: int | None = None
    score_threshold: float | None = None
    client: Any = Field(None, exclude=True)
    on_server: bool = False
    embedding: Any = Field(None, exclude=True)
    embedding_name: str | None = None
    _retrieval: ChromaRetrieval | None = PrivateAttr(None)

    def __init__(
        self,
        user_id: str = "default",
        path: str | Path | None = None,
        window: int = 4,
        k: int = 5,
        embedding: BaseEmbedding | Embedding | None = None,
        session_id: str = "default",
        client: ClientAPI | None = None,
        **state: Any,
    ) -> None:
        check_user_id(user_id)
        check_user_id(session_id, "session id")
        state.setdefault("embedding_name", None if embedding is None else type(embedding).__name__)
        state.setdefault("on_server", client is not None)
        folder = None if path is None else str(Path(path).expanduser().resolve())
        state |= {"user_id": user_id, "path": folder, "window": window, "k": k, "embedding": embedding, "session_id": session_id, "client": client}
        super().__init__(**state)
        if (embedding is not None or self.embedding_name is None) and (client is not None or not self.on_server):
            self._retrieval = self._open()

    def _open(self) -> ChromaRetrieval:
        if self.embedding is None and self.embedding_name is not None:
            raise InvalidInputError(
                f"this memory was saved with the embedding {self.embedding_name}, which does not travel with it; set `memory.embedding` to one like it"
            )
        if self.client is None and self.on_server:
            raise InvalidInputError("this memory was saved with a Chroma server's client, which does not travel with it; set `memory.client` to one like it")
        embedding = _Adapted(self.embedding) if isinstance(self.embedding, BaseEmbedding) else self.embedding
        return ChromaRetrieval(self.path, client=self.client, embedding=embedding, chunk_size=self.chunk_size)

    @property
    def retrieval(self) -> ChromaRetrieval:
        """The retrieval behind this memory. Raises InvalidInputError for a restored memory that lacks its embedding."""
        if self._retrieval is None:
            self._retrieval = self._open()
        return self._retrieval

    def _evidence(self, query: str, shown: frozenset[str]) -> list[str]:
        return retrieved_lines(self.retrieval, self.user_id, query, shown, self.k, self.score_threshold)

    def _history(self) -> tuple[Hashable, list[StoredTurn]]:
        rows = self.retrieval.get_all(self.user_id)
        turns = [StoredTurn(row.id, str(row.metadata["role"]), row.text) for row in rows if row.metadata.get("session_id") == self.session_id]
        return tuple(row.id for row in rows), turns

    def _remember(self, turns: Sequence[tuple[str, str]]) -> list[str]:
        metadatas = [{"role": role, "session_id": self.session_id} for role, _ in turns]
        return self.retrieval.add(self.user_id, [text for _, text in turns], metadatas=metadatas)

    def _forget(self, turns: Sequence[StoredTurn]) -> None:
        self.retrieval.delete(self.user_id, ids=[turn.id for turn in turns])

    def as_llm(self, **options: Any) -> LPMLLM:
        """The same frozen backbone without latent memory: it reads the retrieved text. `options` are fields of LPMLLM."""
        from lpm_integrations.llama_index.llm import LPMLLM

        return LPMLLM(None, **options)
