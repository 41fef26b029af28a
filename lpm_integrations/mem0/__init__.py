"""A memory client with Mem0's API: `Memory` and its async twin, over LPM or over a Chroma RAG memory."""

from __future__ import annotations

from lpm_integrations.mem0.asynchronous import AsyncMemory
from lpm_integrations.mem0.client import Memory

__all__ = ["AsyncMemory", "Memory"]
