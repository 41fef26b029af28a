"""LPMMemory: latent personal memory as a LlamaIndex memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

from lpm_core.engine import LPM
from lpm_core.explain import Explanation
from lpm_core.validation import check_user_id
from lpm_integrations.llama_index.base import PersonalMemory
from lpm_integrations.llama_index.engine import Remembering
from lpm_integrations.llama_index.messages import StoredTurn

__all__ = ["LPMMemory"]


class LPMMemory(Remembering, PersonalMemory):
    """A person's whole history behind any chat engine or agent; works without arguments.

    user_id, session_id: opaque strings. store, model, memory: as in `LPM.from_pretrained`; or pass an open `engine`.
    window: how many of the session's last messages stay verbatim. recall: "soft" gives a marker that `as_llm()` turns
    into soft tokens, with no history text in the prompt; "text" gives the turns that the read attention points to, for
    any other LLM; "auto" gives both, and an LPM model drops the text. With "soft", a chat of another LLM raises
    ModelError. Use "text" with LLMs whose integration sends `additional_kwargs` to an API that refuses unknown fields.
    Raises InvalidInputError, ModelError, StoreError.
    """

    def __init__(
        self,
        user_id: str = "default",
        store: str | None = None,
        model: str | None = None,
        memory: str | None = None,
        window: int = 4,
        recall: Literal["auto", "soft", "text"] = "auto",
        session_id: str = "default",
        engine: LPM | None = None,
        **state: Any,
    ) -> None:
        check_user_id(user_id)
        check_user_id(session_id, "session id")
        state |= {"user_id": user_id, "store": store, "model": model, "memory": memory, "window": window, "recall": recall, "session_id": session_id}
        super().__init__(**state)
        self._hold(engine)

    def explain(self, question: str) -> Explanation:
        """What this memory makes of a question: soft tokens, and the turns behind them; `print` it."""
        return self.engine.explain(self.user_id, question)

    def _history(self) -> tuple[Hashable, list[StoredTurn]]:
        return self.engine.store.version(self.user_id), self._stored(self.session_id)

    def _remember(self, turns: Sequence[tuple[str, str]]) -> list[str]:
        return self._remember_in(self.session_id, turns)
