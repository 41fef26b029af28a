"""Memory for `langchain.agents.create_agent`: LPMMiddleware and, with the same face, RAGMiddleware."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

from langchain.agents.middleware.types import AgentMiddleware, AgentState, ModelRequest, ModelResponse, PrivateStateAttr
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.config import get_config
from langgraph.runtime import Runtime

from lpm_core.engine import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_core.validation import check_user_id
from lpm_integrations.chroma.embedding import Embedding
from lpm_integrations.chroma.retrieval import ChromaRetrieval
from lpm_integrations.engines import shared_engine
from lpm_integrations.langchain.base import PersonalMemory
from lpm_integrations.langchain.chat_model import ChatLPM
from lpm_integrations.langchain.memory import LPMMemory
from lpm_integrations.langchain.messages import text_of
from lpm_integrations.langchain.rag import RAGMemory

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from langchain_core.messages import BaseMessage

__all__ = ["LPMMiddleware", "RAGMiddleware"]


class _MemoryState(AgentState[Any]):
    """The agent's state, and the question whose turn was stored last: a turn is stored once, however often a run resumes."""

    memory_saved: NotRequired[Annotated[str | None, PrivateStateAttr]]


class _MemoryMiddleware(AgentMiddleware[_MemoryState, Any]):
    """What the two have in common.

    The user is `user_id` of the constructor, else of `runtime.context`, else of the config's `configurable`; the
    session is `configurable.thread_id`. The model sees what memory says about the question, the last `window` messages
    before it, and the whole of the turn in progress. A finished turn is stored once: the user's message and the answer,
    never the output of a tool.
    """

    state_schema = _MemoryState

    def __init__(self, user_id: str | None, window: int) -> None:
        super().__init__()
        if user_id is not None:
            check_user_id(user_id)
        if window < 0:
            raise InvalidInputError(f"window is {window}; it counts messages, so give 0 or more")
        self.user_id, self.window = user_id, window

    @abstractmethod
    def memory(self, user_id: str, session_id: str = "default") -> PersonalMemory:
        """The memory of one user and session."""

    @abstractmethod
    def as_chat_model(self, **options: Any) -> ChatLPM:
        """The embedded model for an agent with this middleware. `options` are fields of ChatLPM."""

    def _memory_of(self, runtime: Runtime[Any]) -> PersonalMemory:
        context = runtime.context
        configurable = get_config().get("configurable", {})
        named = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
        user_id = self.user_id or named or configurable.get("user_id")
        if user_id is None:
            raise InvalidInputError(
                f"no user id: pass {type(self).__name__}(user_id=…), context={{'user_id': …}}, or config={{'configurable': {{'user_id': …}}}} to the agent"
            )
        return self.memory(check_user_id(user_id), str(configurable.get("thread_id", "default")))

    def _with_memory(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        memory = self._memory_of(request.runtime)
        soft = isinstance(request.model, ChatLPM)
        start = _question(request.messages)
        turn = request.messages[start:]
        earlier = [message for message in request.messages[:start] if _spoken(message)]
        recent = earlier[max(0, len(earlier) - self.window) :]
        query = text_of(turn[0]) if turn else ""
        recalled = memory.recalled(query, [*recent, *turn], text=not soft or memory.needs_text)
        if recalled is None:
            return request.override(messages=[*recent, *turn])
        said = request.system_message.text if request.system_message else ""
        system = SystemMessage("\n\n".join(part for part in (said, text_of(recalled)) if part), additional_kwargs=recalled.additional_kwargs)
        return request.override(system_message=system, messages=[*recent, *turn])

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> ModelResponse[Any]:
        """Put memory in front of the messages, for this call alone."""
        return handler(self._with_memory(request))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]) -> ModelResponse[Any]:
        """`wrap_model_call` without blocking the event loop."""
        return await handler(await asyncio.to_thread(self._with_memory, request))

    def after_agent(self, state: _MemoryState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Store the finished turn. It is on disk when this returns."""
        turn = state["messages"][_question(state["messages"]) :]
        answer = next((message for message in reversed(turn) if isinstance(message, AIMessage) and _spoken(message)), None)
        if answer is None or turn[0].id == state.get("memory_saved", ""):
            return None
        self._memory_of(runtime).chat_memory.add_messages([message for message in (turn[0], answer) if text_of(message).strip()])
        return {"memory_saved": turn[0].id}

    async def aafter_agent(self, state: _MemoryState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """`after_agent` without blocking the event loop."""
        return await asyncio.to_thread(self.after_agent, state, runtime)


class LPMMiddleware(_MemoryMiddleware):
    """A person's whole history behind an agent of `create_agent`.

    user_id None: named by each call. store, model, memory: as in `LPM.from_pretrained`; or pass an open `engine`.
    recall: as in LPMMemory. Raises InvalidInputError, ModelError, StoreError.
    """

    def __init__(
        self,
        user_id: str | None = None,
        *,
        store: str | None = None,
        model: str | None = None,
        memory: str | None = None,
        window: int = 4,
        recall: Literal["auto", "soft", "text"] = "auto",
        engine: LPM | None = None,
    ) -> None:
        super().__init__(user_id, window)
        self.recall = recall
        self.engine = engine or shared_engine(model, memory, store)

    def memory(self, user_id: str, session_id: str = "default") -> LPMMemory:
        """The memory of one user and session."""
        return LPMMemory(user_id, engine=self.engine, session_id=session_id, window=self.window, recall=self.recall)

    def as_chat_model(self, **options: Any) -> ChatLPM:
        """The frozen backbone as the agent's model: it reads the soft tokens of whoever the middleware names."""
        return ChatLPM(engine=self.engine, **options)


class RAGMiddleware(_MemoryMiddleware):
    """The same over Chroma. path, client, k, score_threshold, embedding, chunk_size: as in RAGMemory."""

    def __init__(
        self,
        user_id: str | None = None,
        *,
        path: str | Path | None = None,
        client: ClientAPI | None = None,
        window: int = 4,
        k: int = 5,
        score_threshold: float | None = None,
        embedding: Embedding | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(user_id, window)
        self.k, self.score_threshold = k, score_threshold
        self._retrieval = ChromaRetrieval(path, client=client, embedding=embedding, chunk_size=chunk_size)

    def memory(self, user_id: str, session_id: str = "default") -> RAGMemory:
        """The memory of one user and session."""
        return RAGMemory(user_id, retrieval=self._retrieval, session_id=session_id, window=self.window, k=self.k, score_threshold=self.score_threshold)

    def as_chat_model(self, **options: Any) -> ChatLPM:
        """The same frozen backbone without latent memory: it reads the retrieved text."""
        return ChatLPM(**options)


def _question(messages: Sequence[AnyMessage]) -> int:
    """Where the turn in progress begins: the last message of the user."""
    return next((index for index in range(len(messages) - 1, -1, -1) if isinstance(messages[index], HumanMessage)), len(messages))


def _spoken(message: BaseMessage) -> bool:
    """Whether user or assistant says something in a message; calls of tools and their output do not count."""
    if isinstance(message, AIMessage) and message.tool_calls:
        return False
    return isinstance(message, HumanMessage | AIMessage) and bool(text_of(message).strip())
