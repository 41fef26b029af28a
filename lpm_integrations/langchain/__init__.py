"""LPM and RAG memory for LangChain: the two swap by one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lpm_integrations.langchain.chat_model import ChatLPM
from lpm_integrations.langchain.history import LPMChatMessageHistory
from lpm_integrations.langchain.memory import LPMMemory
from lpm_integrations.langchain.rag import RAGMemory
from lpm_integrations.langchain.retriever import LPMRetriever

if TYPE_CHECKING:
    from lpm_integrations.langchain.middleware import LPMMiddleware, RAGMiddleware

__all__ = ["ChatLPM", "LPMChatMessageHistory", "LPMMemory", "LPMMiddleware", "LPMRetriever", "RAGMemory", "RAGMiddleware"]


def __getattr__(name: str) -> Any:
    """Import the middleware on first use: it needs LangGraph, which takes a second."""
    if name not in ("LPMMiddleware", "RAGMiddleware"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lpm_integrations.langchain import middleware

    return getattr(middleware, name)
