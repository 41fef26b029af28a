"""LPMMemory: latent personal memory as a LangChain memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from lpm_core.engine import LPM
from lpm_core.explain import Explanation
from lpm_core.validation import check_user_id
from lpm_integrations.engines import shared_engine
from lpm_integrations.evidence import SOFT_ONLY, recalled_lines
from lpm_integrations.langchain.base import PersonalMemory
from lpm_integrations.langchain.guard import guard_soft_tokens
from lpm_integrations.langchain.history import LPMChatMessageHistory
from lpm_integrations.marker import memory_marker

if TYPE_CHECKING:
    from lpm_integrations.langchain.chat_model import ChatLPM

__all__ = ["LPMMemory"]


class LPMMemory(PersonalMemory):
    """A person's whole history behind any chain or agent; works without arguments.

    recall: "soft" passes a marker that `as_chat_model()` turns into soft tokens, with no history text in the prompt;
    "text" passes the turns that the read attention points to, for any other chat model; "auto" passes both, and an LPM
    model drops the text. Another model that gets a prompt of a "soft" memory raises ModelError, before it runs.
    Raises InvalidInputError, ModelError, StoreError.
    """

    store: str | None = None
    model: str | None = None
    memory: str | None = None
    recall: Literal["auto", "soft", "text"] = "auto"
    _engine: LPM = PrivateAttr()

    def __init__(self, user_id: str = "default", *, engine: LPM | None = None, **fields: Any) -> None:
        check_user_id(user_id)
        opened = engine or shared_engine(fields.get("model"), fields.get("memory"), fields.get("store"))
        session_id = fields.get("session_id", "default")
        fields.setdefault("chat_memory", LPMChatMessageHistory(opened, user_id, session_id))
        super().__init__(user_id=user_id, **fields)
        self._engine = opened
        if self.recall == "soft":
            guard_soft_tokens()

    @property
    def engine(self) -> LPM:
        """The engine behind this memory."""
        return self._engine

    def _evidence(self, query: str, shown: frozenset[str]) -> list[str]:
        return [] if self.recall == "soft" else recalled_lines(self._engine, self.user_id, query, shown)

    def _as_text(self, lines: Sequence[str]) -> str:
        return SOFT_ONLY if self.recall == "soft" else super()._as_text(lines)

    def _marker(self) -> dict[str, Any]:
        return {} if self.recall == "text" else memory_marker(self.user_id, self._engine.store.id)

    def explain(self, question: str) -> Explanation:
        """What this memory makes of a question: soft tokens, and the turns behind them; `print` it."""
        return self._engine.explain(self.user_id, question)

    def as_chat_model(self, **options: Any) -> ChatLPM:
        """The frozen backbone as a chat model that reads this user's soft tokens. `options` are fields of ChatLPM."""
        from lpm_integrations.langchain.chat_model import ChatLPM

        return ChatLPM(user_id=self.user_id, engine=self._engine, **options)
