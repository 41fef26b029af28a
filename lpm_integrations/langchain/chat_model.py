"""ChatLPM: the frozen backbone with a user's soft tokens, as a LangChain chat model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr

from lpm_core.engine import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Usage
from lpm_integrations.engines import shared_engine
from lpm_integrations.evidence import strip_evidence, unfold_transcript
from lpm_integrations.langchain.messages import from_langchain, marker

__all__ = ["ChatLPM"]


class ChatLPM(BaseChatModel):
    """A frozen Qwen3 that remembers the user through soft tokens.

    user_id: whose memory to read; None: that of the memory marker in the messages, and without one the bare backbone.
    Text that an LPMMemory put beside the marker is dropped: the soft tokens say it. Nothing is stored by asking.
    """

    user_id: str | None = None
    store: str | None = None
    model: str | None = None
    memory: str | None = None
    temperature: float = Field(0.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(64, gt=0)
    stop: list[str] | None = None
    seed: int | None = None
    enable_thinking: bool = False
    _engine: LPM = PrivateAttr()

    def __init__(self, *, engine: LPM | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self._engine = engine or shared_engine(self.model, self.memory, self.store)

    @property
    def engine(self) -> LPM:
        """The engine behind this model."""
        return self._engine

    @property
    def _llm_type(self) -> str:
        return "lpm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("user_id", "temperature", "top_p", "max_tokens", "stop", "seed", "enable_thinking")
        return {"model": self._engine.backbone.name, "store": self._engine.store.id} | {name: getattr(self, name) for name in names}

    def _prepare(self, messages: list[BaseMessage]) -> tuple[str | None, list[dict[str, Any]]]:
        """Whose memory to read, and the messages without what memory wrote for other models."""
        user_id = self.user_id
        kept: list[dict[str, Any]] = []
        for message in messages:
            mark = marker(message)
            if mark is not None:
                if mark.get("store_id") != self._engine.store.id:
                    raise InvalidInputError(f"the memory marker of user {mark['user_id']!r} names another store; build the model with `memory.as_chat_model()`")
                if self.user_id is not None and mark["user_id"] != self.user_id:
                    raise InvalidInputError(
                        f"this model is bound to user {self.user_id!r}, the memory in the prompt to {mark['user_id']!r}; use one user for both"
                    )
                user_id = mark["user_id"]
                continue
            kept.append(from_langchain(message))
        if (
            len(kept) == 1
            and kept[0]["role"] == "user"
            and (unfolded := unfold_transcript(strip_evidence(kept[0]["content"]) if user_id else kept[0]["content"]))
        ):
            kept = [{"role": role, "content": content} for role, content in unfolded]
        return user_id, kept

    def _options(self, overrides: dict[str, Any]) -> dict[str, Any]:
        names = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed", "enable_thinking": "enable_thinking"}
        return {target: overrides.get(name, getattr(self, name)) for name, target in names.items()}

    def _usage(self, usage: Usage) -> UsageMetadata:
        return UsageMetadata(
            input_tokens=usage.prompt_tokens + usage.soft_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.prompt_tokens + usage.soft_tokens + usage.output_tokens,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 (the base class's signature)
        **kwargs: Any,
    ) -> ChatResult:
        user_id, prepared = self._prepare(messages)
        options = self._options(kwargs)
        answer = self._engine.ask(user_id, prepared, **options)
        text, stopped = _cut(answer.text, stop or self.stop)
        metadata = {
            "model_name": self._engine.backbone.name,
            "finish_reason": "stop" if stopped or answer.usage.output_tokens < options["max_new_tokens"] else "length",
            "soft_tokens": answer.usage.soft_tokens,
            "evidence": [item.turn.id for item in answer.evidence],
        }
        message = AIMessage(text, usage_metadata=self._usage(answer.usage), response_metadata=metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 (the base class's signature)
        **kwargs: Any,
    ) -> ChatResult:
        return await asyncio.to_thread(self._generate, messages, stop, None, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        user_id, prepared = self._prepare(messages)
        words = stop or self.stop
        said = ""
        for piece in self._engine.stream(user_id, prepared, **self._options(kwargs)):
            text, stopped = _cut(said + piece, words)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text[len(said) :]))
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
            said = text
            if stopped:
                break
        yield ChatGenerationChunk(message=AIMessageChunk(content="", chunk_position="last", response_metadata={"model_name": self._engine.backbone.name}))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = self._stream(messages, stop, None, **kwargs)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _cut(text: str, stop: list[str] | None) -> tuple[str, bool]:
    """The text up to the first stop sequence, and whether there was one."""
    ends = [position for word in stop or () if word and (position := text.find(word)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
