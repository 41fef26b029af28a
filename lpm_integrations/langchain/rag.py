"""RAGMemory: a Chroma RAG memory with the face of LPMMemory, for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from pydantic import ConfigDict, Field, PrivateAttr

from lpm_core.validation import check_user_id
from lpm_integrations.chroma.embedding import Embedding
from lpm_integrations.chroma.retrieval import ChromaRetrieval
from lpm_integrations.evidence import retrieved_lines
from lpm_integrations.langchain.base import PersonalMemory
from lpm_integrations.langchain.messages import as_message, to_turns

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from lpm_integrations.langchain.chat_model import ChatLPM

__all__ = ["RAGMemory"]


class _ChromaHistory(BaseChatMessageHistory):
    """Turns of one user and session as documents of a Chroma collection."""

    def __init__(self, retrieval: ChromaRetrieval, user_id: str, session_id: str) -> None:
        self.retrieval, self.user_id, self.session_id = retrieval, user_id, session_id

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        return [as_message(str(hit.metadata["role"]), hit.text) for hit in self._session()]

    def _session(self) -> list[Any]:
        return [hit for hit in self.retrieval.get_all(self.user_id) if hit.metadata.get("session_id") == self.session_id]

    def add_messages(self, messages: Any) -> None:
        turns = to_turns(messages)
        if turns:
            metadatas = [{"role": turn["role"], "session_id": self.session_id} for turn in turns]
            self.retrieval.add(self.user_id, [turn["content"] for turn in turns], metadatas=metadatas)

    def clear(self) -> None:
        hits = self._session()
        if hits:
            self.retrieval.delete(self.user_id, ids=[hit.id for hit in hits])


class RAGMemory(PersonalMemory):
    """The same memory interface over Chroma: every turn a document, the `k` nearest as evidence.

    path: folder of the Chroma database (None: in LPM_HOME); or client: a `chromadb.HttpClient`. chunk_size: turns
    longer than so many characters are found, and given, in chunks. score_threshold: those whose cosine similarity with the question is lower are left out. embedding: any LangChain embedding, or another object with
    embed_documents and embed_query (None: MiniLM). Or pass an open `retrieval`, which decides all of these but k and the threshold.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    path: str | None = None
    k: int = Field(5, ge=1)
    chunk_size: int | None = None
    score_threshold: float | None = None
    embedding: Any = None
    _retrieval: ChromaRetrieval = PrivateAttr()

    def __init__(
        self,
        user_id: str = "default",
        *,
        path: str | Path | None = None,
        client: ClientAPI | None = None,
        embedding: Embedding | None = None,
        chunk_size: int | None = None,
        retrieval: ChromaRetrieval | None = None,
        **fields: Any,
    ) -> None:
        check_user_id(user_id)
        retrieval = retrieval or ChromaRetrieval(path, client=client, embedding=embedding, chunk_size=chunk_size)
        fields.setdefault("chat_memory", _ChromaHistory(retrieval, user_id, fields.get("session_id", "default")))
        fields |= {"user_id": user_id, "path": None if path is None else str(path), "embedding": embedding, "chunk_size": chunk_size}
        super().__init__(**fields)
        self._retrieval = retrieval

    def _evidence(self, query: str, shown: frozenset[str]) -> list[str]:
        return retrieved_lines(self._retrieval, self.user_id, query, shown, self.k, self.score_threshold)

    def as_chat_model(self, **options: Any) -> ChatLPM:
        """The same frozen backbone without latent memory: it reads the retrieved text."""
        from lpm_integrations.langchain.chat_model import ChatLPM

        return ChatLPM(user_id=None, **options)
