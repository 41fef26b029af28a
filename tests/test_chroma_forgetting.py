"""What was deleted from RAG memory is gone from its database too."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from test_chroma import WordsEmbedding

from lpm_integrations.chroma import ChromaRetrieval


@pytest.mark.parametrize("chunk_size", [None, 40])
def test_no_byte_of_a_deleted_text_is_left_in_the_database(tmp_path: Path, chunk_size: int | None) -> None:
    def found(mark: str) -> bool:
        return any(mark.encode() in file.read_bytes() for file in tmp_path.glob("chroma.sqlite3*"))

    def text(mark: str) -> str:
        return f"the secret is {mark}, and there is more to say about it than fits a chunk"

    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding(), chunk_size=chunk_size) as rag:
        ids = rag.add("ann", [text("zanzibar"), text("timbuktu")])
        rag.add("bo", [text("samarkand")])
        assert found("zanzibar")

        rag.delete("ann", ids[:1])
        assert not found("zanzibar")
        assert found("timbuktu")
        rag.delete("ann")
        assert not found("timbuktu")
        rag.add("bo", ["and a little more"])

    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding()) as rag:
        assert [document.text for document in rag.get_all("bo")] == [text("samarkand"), "and a little more"]
        assert "samarkand" in rag.search("bo", "the secret is samarkand", k=1)[0].text
        assert not found("zanzibar")


def test_a_busy_file_keeps_deleted_texts_until_the_next_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("lpm_integrations.chroma.retrieval._PATIENCE", 0.05)
    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding()) as rag:
        ids = rag.add("ann", ["one zanzibar", "two timbuktu"])
        with closing(sqlite3.connect(tmp_path / "chroma.sqlite3", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM embeddings_queue").fetchone()
            with caplog.at_level(logging.WARNING):
                rag._wipe()
        assert "until the next deletion" in caplog.text

        rag.delete("ann", ids)

        assert b"zanzibar" not in (tmp_path / "chroma.sqlite3").read_bytes()
