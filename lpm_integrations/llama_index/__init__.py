"""LPM and RAG memory for LlamaIndex: the two swap by one line."""

from __future__ import annotations

from lpm_integrations.llama_index.block import EveryTurnMemory, LPMMemoryBlock
from lpm_integrations.llama_index.llm import LPMLLM
from lpm_integrations.llama_index.memory import LPMMemory
from lpm_integrations.llama_index.rag import RAGMemory

__all__ = ["LPMLLM", "EveryTurnMemory", "LPMMemory", "LPMMemoryBlock", "RAGMemory"]
