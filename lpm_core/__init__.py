"""Latent personal memory: a person's history as a small matrix of slots in front of a frozen local Qwen3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lpm_core.exceptions import (
    DatasetError,
    EngineClosedError,
    InvalidInputError,
    LPMError,
    MemoryWeightsError,
    MissingDependencyError,
    ModelError,
    ModelNotFoundError,
    StoreCorruptError,
    StoreError,
    StoreKeyError,
    StoreUnavailableError,
    StoreVersionError,
    UnknownUserError,
)
from lpm_core.settings import LPMConfig, LPMSettings

if TYPE_CHECKING:
    from lpm_core.consolidation import ConsolidationRecipe, ConsolidationReport
    from lpm_core.engine import LPM, AnswerStream, ForgetReceipt
    from lpm_core.explain import Explanation
    from lpm_core.memory import Answer, Evidence, Page, Quarantined, Recall, ToolCall, Turn, Usage, UserMemory
    from lpm_core.stats import Stats
    from lpm_core.store import MemoryStore

__all__ = [
    "LPM",
    "Answer",
    "AnswerStream",
    "ConsolidationRecipe",
    "ConsolidationReport",
    "DatasetError",
    "EngineClosedError",
    "Evidence",
    "Explanation",
    "ForgetReceipt",
    "InvalidInputError",
    "LPMConfig",
    "LPMError",
    "LPMSettings",
    "MemoryStore",
    "MemoryWeightsError",
    "MissingDependencyError",
    "ModelError",
    "ModelNotFoundError",
    "Page",
    "Quarantined",
    "Recall",
    "Stats",
    "StoreCorruptError",
    "StoreError",
    "StoreKeyError",
    "StoreUnavailableError",
    "StoreVersionError",
    "ToolCall",
    "Turn",
    "UnknownUserError",
    "Usage",
    "UserMemory",
]

_HOMES = {
    "engine": ("LPM", "AnswerStream", "ForgetReceipt"),
    "consolidation": ("ConsolidationRecipe", "ConsolidationReport"),
    "explain": ("Explanation",),
    "memory": ("Answer", "Evidence", "Page", "Quarantined", "Recall", "ToolCall", "Turn", "Usage", "UserMemory"),
    "stats": ("Stats",),
    "store": ("MemoryStore",),
}
_LAZY = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use, so that `lpm --help` is quick."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"lpm_core.{_LAZY[name]}"), name)
