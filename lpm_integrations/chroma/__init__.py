"""RAG memory on Chroma: `ChromaRetrieval` is the one retrieval core, `MiniLMEmbedding` its default embedding."""

from __future__ import annotations

from lpm_integrations.chroma.embedding import Embedding, MiniLMEmbedding
from lpm_integrations.chroma.retrieval import ChromaRetrieval, Document, Hit

__all__ = ["ChromaRetrieval", "Document", "Embedding", "Hit", "MiniLMEmbedding"]
