"""Chunks of long texts: a collection beside that of the whole texts, which searches look at instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lpm_core.exceptions import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from chromadb import Collection

    from lpm_integrations.chroma.embedding import Embedding

__all__ = ["PARENT", "Parts"]

PARENT = "lpm_parent"
"""Metadata key under which a chunk names the text that it is a part of."""

_SIZE = "chunk_size"
_BATCH = 1000


class Parts:
    """Texts cut into chunks of at most `chunk_size` characters, between paragraphs, sentences or words where they can be.

    A collection keeps to one size. Raises InvalidInputError for another one, and for one below 20;
    MissingDependencyError without langchain-text-splitters.
    """

    def __init__(self, collection: Collection, chunk_size: int | None, embedding: Embedding) -> None:
        try:
            from langchain_text_splitters import RecursiveCharacterTextSplitter
        except ImportError as error:
            raise MissingDependencyError(f'{error.name} is not installed: pip install "latent-personal-memory[chroma]"') from error

        kept = int((collection.metadata or {})[_SIZE])
        if chunk_size not in (None, kept):
            raise InvalidInputError(f"chunk_size {chunk_size}: this collection has chunks of {kept} characters; leave it out, or name another collection")
        self.collection = collection
        self._embedding = embedding
        self._splitter = RecursiveCharacterTextSplitter(
            chunk_size=kept, chunk_overlap=0, separators=["\n\n", "\n", ". ", "! ", "? ", " ", ""], keep_separator="end"
        )

    @staticmethod
    def metadata(chunk_size: int) -> dict[str, Any]:
        """What the collection of the chunks remembers. Raises InvalidInputError for a size below 20."""
        if chunk_size < 20:
            raise InvalidInputError(f"chunk_size {chunk_size}: it is at least 20 characters")
        return {_SIZE: chunk_size}

    def put(self, keys: Sequence[str], texts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Chunks of texts in place of those that their keys had; a chunk has the metadata of its text."""
        self.drop(keys)
        chunks = [
            (f"{number}:{key}", chunk, {**{name: value for name, value in row.items() if value is not None}, PARENT: key})
            for key, text, row in zip(keys, texts, rows, strict=True)
            for number, chunk in enumerate(self._splitter.split_text(text) or [text])
        ]
        for start in range(0, len(chunks), _BATCH):
            ids, documents, metadatas = (list(column) for column in zip(*chunks[start : start + _BATCH], strict=True))
            vectors: Any = self._embedding.embed_documents(documents)
            self.collection.upsert(ids=ids, embeddings=vectors, documents=documents, metadatas=metadatas)

    def drop(self, keys: Sequence[str]) -> None:
        """Delete the chunks of texts."""
        if keys:
            where: Any = {PARENT: {"$in": list(keys)}}
            self.collection.delete(where=where)
