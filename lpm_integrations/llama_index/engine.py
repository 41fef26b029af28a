"""How the parts of this integration hold an engine: named by public fields, so that it is found again after a restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from pydantic import BaseModel, PrivateAttr

from lpm_core.engine import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_integrations.engines import shared_engine
from lpm_integrations.evidence import SOFT_ONLY, recalled_lines
from lpm_integrations.llama_index.guard import guard_soft_tokens
from lpm_integrations.llama_index.messages import StoredTurn
from lpm_integrations.marker import memory_marker

if TYPE_CHECKING:
    from lpm_integrations.llama_index.llm import LPMLLM

__all__ = ["OnEngine", "Remembering"]

_opened: WeakValueDictionary[str, LPM] = WeakValueDictionary()
"""Engines in use, by store and weights: one that was passed by hand is found again within the process."""


class OnEngine(BaseModel):
    """Something on an engine.

    store, model, memory: as in `LPM.from_pretrained`. `engine_id` names the store and the weights in use.
    """

    store: str | None = None
    model: str | None = None
    memory: str | None = None
    engine_id: str | None = None
    _engine: LPM | None = PrivateAttr(None)

    def _hold(self, engine: LPM | None) -> None:
        """Hold this engine, or the one that the fields name; a restored object opens it on first use."""
        if engine is None and self.engine_id is not None:
            return
        self._engine = engine or shared_engine(self.model, self.memory, self.store)
        self.engine_id = f"{self._engine.store.id}/{self._engine.weights.fingerprint}"
        _opened[self.engine_id] = self._engine

    @property
    def engine(self) -> LPM:
        """The engine behind this object. Raises InvalidInputError if it was saved on a store that the fields do not name."""
        if self._engine is None:
            name = self.engine_id
            engine = _opened.get(name or "")
            if engine is None or engine.closed:
                engine = shared_engine(self.model, self.memory, self.store)
                if name and name.split("/")[0] != engine.store.id:
                    raise InvalidInputError(
                        f"this {type(self).__name__} was saved on store {name.split('/')[0]!r}, and store={self.store!r} is {engine.store.id!r}; "
                        "save it with store=URL instead of an engine passed by hand"
                    )
            self._hold(engine)
        assert self._engine is not None  # noqa: S101 (for the type checker)
        return self._engine


class Remembering(OnEngine):
    """A user's latent memory: evidence as text, a marker for LPM models, and turns to remember.

    recall: "soft" passes a marker that `as_llm()` turns into soft tokens, with no history text in the prompt; "text"
    passes the turns that the read attention points to, for any other LLM; "auto" passes both, and an LPM model drops the
    text. With "soft", a chat of another LLM raises ModelError. Use "text" with LLMs whose integration sends
    `additional_kwargs` to an API that refuses unknown fields.
    """

    user_id: str = "default"
    session_id: str = "default"
    recall: Literal["auto", "soft", "text"] = "auto"

    def _evidence(self, query: str, shown: frozenset[str]) -> list[str]:
        return [] if self.recall == "soft" else recalled_lines(self.engine, self.user_id, query, shown)

    def _placeholder(self) -> str:
        if self.recall != "soft":
            return ""
        guard_soft_tokens()
        return SOFT_ONLY

    def _marker(self) -> dict[str, Any]:
        return {} if self.recall == "text" else memory_marker(self.user_id, self.engine.store.id)

    def _stored(self, session_id: str) -> list[StoredTurn]:
        turns = self.engine.turns(self.user_id, session_id=session_id)
        return [StoredTurn(turn.id, turn.role, turn.content) for turn in turns if turn.source in ("user", "assistant")]

    def _remember_in(self, session_id: str, turns: Sequence[tuple[str, str]]) -> list[str]:
        return self.engine.remember(self.user_id, [{"role": role, "content": text} for role, text in turns], session_id=session_id)

    def _forget(self, turns: Sequence[StoredTurn]) -> None:
        self.engine.forget(self.user_id, turn_ids=[turn.id for turn in turns])

    def as_llm(self, **options: Any) -> LPMLLM:
        """The frozen backbone as an LLM that reads this user's soft tokens. `options` are fields of LPMLLM."""
        from lpm_integrations.llama_index.llm import LPMLLM

        return LPMLLM(self.user_id, engine=self.engine, **options)
