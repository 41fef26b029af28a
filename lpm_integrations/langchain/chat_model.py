"""ChatLPM: the frozen backbone with a user's soft tokens, as a LangChain chat model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr, SecretStr

from lpm_core.engine import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Answer, Usage
from lpm_integrations.engines import shared_engine
from lpm_integrations.evidence import SOFT_ONLY, strip_evidence, unfold_transcript
from lpm_integrations.langchain.messages import from_langchain, text_of
from lpm_integrations.marker import marked_user

__all__ = ["ChatLPM"]


class ChatLPM(BaseChatModel):
    """A frozen Qwen3 that remembers the user through soft tokens.

    user_id: whose memory to read. None: that of the memory marker in the messages, else `configurable.user_id` of the
    config, and without either the bare backbone. Text that an LPMMemory put beside the marker is dropped: the soft
    tokens say it. Nothing is stored by asking. Answers depend on what is remembered by then, so they are not cached
    unless `cache` asks for it. `timeout`, `max_retries`, `api_key` and `streaming` are taken for the sake of code that
    passes them to any chat model; a local model needs none of them.
    """

    user_id: str | None = None
    store: str | None = None
    model: str | None = None
    memory: str | None = None
    temperature: float = Field(0.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(128, gt=0)
    stop: list[str] | None = None
    seed: int | None = None
    enable_thinking: bool = False
    cache: Any = False
    timeout: float | None = None
    max_retries: int | None = None
    api_key: SecretStr | None = None
    streaming: bool = False
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

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        return LangSmithParams(**{**params, "ls_provider": "lpm", "ls_model_name": kwargs.get("model", self._engine.backbone.name)})

    # -------------------------------------------------------------- tools

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools at hand, in Qwen3's format; what it calls always fits their schemas.

        tool_choice: "auto" (None), "none", "any" or "required" (True), a tool's name, or OpenAI's dict of it.
        """
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=_choice(tool_choice), **kwargs)

    # -------------------------------------------------------------- whose memory

    def _lift(self, config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The user of the config as a keyword, which is part of the key of a cache; the config is not."""
        named = ensure_config(config).get("configurable", {}).get("user_id")
        return kwargs if named is None or "user_id" in kwargs else {**kwargs, "user_id": str(named)}

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any) -> AIMessage:  # noqa: A002
        """Answer one prompt."""
        return super().invoke(input, config, stop=stop, **self._lift(config, kwargs))

    async def ainvoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any) -> AIMessage:  # noqa: A002
        """Answer one prompt without blocking the event loop."""
        return await super().ainvoke(input, config, stop=stop, **self._lift(config, kwargs))

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """The answer in pieces."""
        yield from super().stream(input, config, stop=stop, **self._lift(config, kwargs))

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """The answer in pieces, without blocking the event loop."""
        async for chunk in super().astream(input, config, stop=stop, **self._lift(config, kwargs)):
            yield chunk

    def _prepare(self, messages: list[BaseMessage], configured: str | None) -> tuple[str | None, list[dict[str, Any]]]:
        """Whose memory to read, and the messages without what memory wrote for other models."""
        user_id = self.user_id
        kept: list[dict[str, Any]] = []
        for message in messages:
            if (marked := marked_user(message.additional_kwargs, user_id, self._engine.store.id, "as_chat_model")) is not None:
                user_id = marked
                message = message.model_copy(update={"content": strip_evidence(text_of(message)).strip()})
                if not message.content:
                    continue
            kept.append(from_langchain(message))
        user_id = configured if user_id is None else user_id
        if user_id is None and any(SOFT_ONLY in row["content"] for row in kept):
            raise InvalidInputError("the prompt names a memory in soft tokens, but not whose; use the model that the memory's as_chat_model() gives")
        if (
            len(kept) == 1
            and kept[0]["role"] == "user"
            and (unfolded := unfold_transcript(strip_evidence(kept[0]["content"]) if user_id else kept[0]["content"]))
        ):
            kept = [{"role": role, "content": content} for role, content in unfolded]
        return user_id, kept

    def _options(self, overrides: dict[str, Any]) -> dict[str, Any]:
        names = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed", "enable_thinking": "enable_thinking"}
        chosen = {target: overrides.get(name, getattr(self, name)) for name, target in names.items()}
        if tools := overrides.get("tools"):
            chosen |= {"tools": tools, "tool_choice": _choice(overrides.get("tool_choice"))}
        return chosen

    @staticmethod
    def _usage(usage: Usage) -> UsageMetadata:
        """Soft tokens are part of the input, and named apart in its details."""
        return UsageMetadata(
            input_tokens=usage.prompt_tokens + usage.soft_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.prompt_tokens + usage.soft_tokens + usage.output_tokens,
            input_token_details=cast(InputTokenDetails, {"soft_tokens": usage.soft_tokens}),
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 (the base class's signature)
        **kwargs: Any,
    ) -> ChatResult:
        answer, metadata = self._answer(messages, stop, kwargs)
        calls = [tool_call(name=call.name, args=dict(call.arguments), id=call.id) for call in answer.tool_calls]
        message = AIMessage(answer.text, tool_calls=calls, usage_metadata=self._usage(answer.usage), response_metadata=metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _answer(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
        """The engine's answer, and the metadata of the response."""
        user_id, prepared = self._prepare(messages, kwargs.get("user_id"))
        answer = self._engine.ask(user_id, prepared, stop=stop or self.stop, **self._options(kwargs))
        metadata = {
            "model_name": self._engine.backbone.name,
            "finish_reason": answer.finish_reason,
            "soft_tokens": answer.usage.soft_tokens,
            "evidence": [item.turn.id for item in answer.evidence],
        }
        return answer, metadata

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
        if kwargs.get("tools"):  # a call is one only when it is whole, so answers that may hold calls come in one piece
            answer, metadata = self._answer(messages, stop, kwargs)
            calls = [
                tool_call_chunk(name=call.name, args=json.dumps(call.arguments, ensure_ascii=False), id=call.id, index=index)
                for index, call in enumerate(answer.tool_calls)
            ]
            chunk = AIMessageChunk(
                content=answer.text, tool_call_chunks=calls, usage_metadata=self._usage(answer.usage), response_metadata=metadata, chunk_position="last"
            )
            yield ChatGenerationChunk(message=chunk)
            return
        user_id, prepared = self._prepare(messages, kwargs.get("user_id"))
        pieces = self._engine.stream(user_id, prepared, stop=stop or self.stop, **self._options(kwargs))
        for piece in pieces:
            part = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(part.text, chunk=part)
            yield part
        metadata = {"model_name": self._engine.backbone.name, "evidence": [item.turn.id for item in pieces.evidence]}
        last = AIMessageChunk(content="", chunk_position="last", response_metadata=metadata, usage_metadata=self._usage(pieces.usage))
        yield ChatGenerationChunk(message=last)

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


def _choice(choice: str | bool | dict[str, Any] | None) -> str | None:
    """LangChain's ways to say which tool must be called, as the engine's."""
    if isinstance(choice, dict):
        return str(choice.get("function", choice)["name"])
    return {True: "required", False: None, "any": "required"}.get(choice, choice if isinstance(choice, str) else None)
