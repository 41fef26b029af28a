"""LPM and RAG memory for LangChain: the two swap by one line."""

from __future__ import annotations

from lpm_integrations.langchain.chat_model import ChatLPM
from lpm_integrations.langchain.history import LPMChatMessageHistory
from lpm_integrations.langchain.memory import LPMMemory
from lpm_integrations.langchain.rag import RAGMemory

__all__ = ["ChatLPM", "LPMChatMessageHistory", "LPMMemory", "RAGMemory"]
