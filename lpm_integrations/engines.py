"""Engines shared inside a process: a model is loaded once, however many memories and chat models use it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lpm_core.settings import LPMSettings

if TYPE_CHECKING:
    from lpm_core.engine import LPM

__all__ = ["shared_engine"]

_lock = threading.Lock()
_engines: dict[tuple[str | None, str | None, str], LPM] = {}


def shared_engine(model: str | None = None, memory: str | None = None, store: str | None = None) -> LPM:
    """The process's engine for this model, memory weights and store (None: the defaults of LPM.from_pretrained).

    One that was closed is opened again.
    """
    from lpm_core.engine import LPM

    settings = LPMSettings()
    key = (model or settings.model, memory or settings.memory, store or settings.store_url)
    with _lock:
        engine = _engines.get(key)
        if engine is None or engine.closed:
            twin = next((other for (name, weights, _), other in _engines.items() if (name, weights) == key[:2]), None)
            engine = LPM.from_pretrained(model, memory=memory, store=key[2]) if twin is None else twin.on_store(key[2])
            _engines[key] = engine
        return engine
