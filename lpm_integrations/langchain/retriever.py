"""LPMRetriever: the turns that the read attention points to, as LangChain documents."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, PrivateAttr

from lpm_core.engine import LPM
from lpm_core.validation import check_user_id
from lpm_integrations.engines import shared_engine

__all__ = ["LPMRetriever"]


class LPMRetriever(BaseRetriever):
    """A user's turns that a question calls up, for LPM beside a chat model of your own.

    k: how many at most. floor: the share of attention below which a turn is left out. Each document carries its score
    (share of attention, 0 to 1), turn id, session, role and time. Raises InvalidInputError, ModelError, StoreError.
    """

    user_id: str = "default"
    store: str | None = None
    model: str | None = None
    memory: str | None = None
    k: int = Field(4, ge=1)
    floor: float = Field(0.0, ge=0.0, le=1.0)
    _engine: LPM = PrivateAttr()

    def __init__(self, user_id: str = "default", *, engine: LPM | None = None, **fields: Any) -> None:
        check_user_id(user_id)
        super().__init__(**fields | {"user_id": user_id})
        self._engine = engine or shared_engine(self.model, self.memory, self.store)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,  # noqa: ARG002 (the base class's signature)
        k: int | None = None,
    ) -> list[Document]:
        evidence = self._engine.recall(self.user_id, query, k=self.k if k is None else k, floor=self.floor).evidence
        return [
            Document(
                item.turn.dated,
                id=item.turn.id,
                metadata={
                    "score": item.weight,
                    "turn_id": item.turn.id,
                    "session_id": item.turn.session_id,
                    "role": item.turn.role,
                    "at": item.turn.at.isoformat(),
                },
            )
            for item in evidence
        ]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,  # noqa: ARG002 (the base class's signature)
        k: int | None = None,
    ) -> list[Document]:
        return await asyncio.to_thread(self._get_relevant_documents, query, k=k)
