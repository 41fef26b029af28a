"""LPMLLM: the frozen backbone with a user's soft tokens, as a LlamaIndex LLM that calls functions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    ContentBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import Field

from lpm_core.engine import LPM, AnswerStream, AskOptions
from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Answer
from lpm_integrations.evidence import strip_evidence
from lpm_integrations.llama_index.engine import OnEngine
from lpm_integrations.llama_index.messages import from_llama_index
from lpm_integrations.marker import marked_user

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

__all__ = ["LPMLLM"]

_T = TypeVar("_T")


class LPMLLM(OnEngine, FunctionCallingLLM):
    """A frozen Qwen3 that remembers the user through soft tokens.

    user_id: whose memory to read; None: that of the memory marker in the messages, and without one the bare backbone.
    Text that an LPMMemory put beside the marker is dropped: the soft tokens say it. Nothing is stored by asking.
    `raw` and `additional_kwargs` of a response hold prompt_tokens, soft_tokens, output_tokens and the ids of the turns
    that the memory came from (`evidence`); of an answer that streams, the last piece has them. An answer that may call
    tools comes in one piece.
    """

    user_id: str | None = None
    temperature: float = Field(0.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(64, gt=0)
    stop: list[str] | None = None
    seed: int | None = None
    enable_thinking: bool = False

    def __init__(self, user_id: str | None = None, *, engine: LPM | None = None, **fields: Any) -> None:
        super().__init__(**fields | {"user_id": user_id})
        self._hold(engine)

    @classmethod
    def class_name(cls) -> str:
        """The class's own name."""
        return "LPMLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """Window of the backbone beside the soft tokens, room for the answer, name."""
        return LLMMetadata(
            context_window=self.engine.backbone.window - self.engine.weights.config.heads,
            num_output=self.max_tokens,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.engine.backbone.name,
        )

    def _prepare(self, messages: Sequence[ChatMessage]) -> tuple[str | None, list[dict[str, Any]]]:
        """Whose memory to read, and the messages without what memory wrote for other models."""
        user_id = self.user_id
        kept = []
        for message in messages:
            row = from_llama_index(message)
            if (marked := marked_user(message.additional_kwargs, user_id, self.engine.store.id, "as_llm")) is not None:
                user_id = marked
                row["content"] = strip_evidence(row["content"])
            if row["content"].strip() or row.get("tool_calls") or row["role"] == "user":
                kept.append(row)
        return user_id, kept

    def _options(self, overrides: Mapping[str, Any]) -> AskOptions:
        options = AskOptions(
            max_new_tokens=overrides.get("max_tokens", self.max_tokens),
            temperature=overrides.get("temperature", self.temperature),
            top_p=overrides.get("top_p", self.top_p),
            seed=overrides.get("seed", self.seed),
            enable_thinking=overrides.get("enable_thinking", self.enable_thinking),
            stop=overrides.get("stop", self.stop),
        )
        if overrides.get("tools"):
            options["tools"] = overrides["tools"]
            options["tool_choice"] = overrides.get("tool_choice") or "auto"
        return options

    def _ask(self, user_id: str | None, prepared: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> ChatResponse:
        answer = self.engine.ask(user_id, prepared, **self._options(kwargs))
        calls = answer.tool_calls if kwargs.get("parallel_tool_calls", True) else answer.tool_calls[:1]
        blocks: list[ContentBlock] = [TextBlock(text=answer.text)] if answer.text or not calls else []
        blocks += [ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=dict(call.arguments)) for call in calls]
        return self._response(blocks, answer)

    def _answer(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> ChatResponse:
        return self._ask(*self._prepare(messages), kwargs)

    def _pieces(self, user_id: str | None, prepared: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Iterator[ChatResponse]:
        """The answer as it grows; usage and evidence come with the last piece."""
        if kwargs.get("tools"):
            response = self._ask(user_id, prepared, kwargs)
            yield response.model_copy(update={"delta": response.message.content or ""})
            return
        text = ""
        pieces = self.engine.stream(user_id, prepared, **self._options(kwargs))
        for piece in pieces:
            text += piece
            yield self._piece(text, piece)
        yield self._response([TextBlock(text=text)], pieces).model_copy(update={"delta": ""})

    def _response(self, blocks: list[ContentBlock], answer: Answer | AnswerStream) -> ChatResponse:
        """A finished answer with its usage and evidence."""
        account = _account(answer)
        return ChatResponse(
            message=ChatMessage(blocks, role=MessageRole.ASSISTANT),
            raw={"model": self.engine.backbone.name, "usage": account, "evidence": account["evidence"]},
            additional_kwargs=account,
        )

    def _piece(self, text: str, delta: str) -> ChatResponse:
        return ChatResponse(message=ChatMessage(text, role=MessageRole.ASSISTANT), delta=delta, raw={"model": self.engine.backbone.name})

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last message. Raises InvalidInputError, ModelError."""
        return self._answer(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat`, piece by piece."""
        user_id, prepared = self._prepare(messages)

        def pieces() -> ChatResponseGen:
            yield from self._pieces(user_id, prepared, kwargs)

        return pieces()

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat` without blocking the event loop."""
        return await asyncio.to_thread(self._answer, messages, kwargs)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat` without blocking the event loop."""
        rest = self._pieces(*await asyncio.to_thread(self._prepare, messages), kwargs)

        async def pieces() -> ChatResponseAsyncGen:
            while (piece := await _anext(rest)) is not None:
                yield piece

        return pieces()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt as one message of the user."""
        return _completed(self._answer(self._asked(prompt, formatted), kwargs))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete`, piece by piece."""
        user_id, prepared = self._prepare(self._asked(prompt, formatted))

        def pieces() -> CompletionResponseGen:
            yield from map(_completed, self._pieces(user_id, prepared, kwargs))

        return pieces()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete` without blocking the event loop."""
        return _completed(await asyncio.to_thread(self._answer, self._asked(prompt, formatted), kwargs))

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete` without blocking the event loop."""
        rest = self._pieces(*await asyncio.to_thread(self._prepare, self._asked(prompt, formatted)), kwargs)

        async def pieces() -> CompletionResponseAsyncGen:
            while (piece := await _anext(rest)) is not None:
                yield _completed(piece)

        return pieces()

    def _asked(self, prompt: str, formatted: bool) -> list[ChatMessage]:
        text = prompt if formatted or self.completion_to_prompt is None else self.completion_to_prompt(prompt)
        return [ChatMessage(strip_evidence(text) if self.user_id is not None else text, role=MessageRole.USER)]

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002 (the base class's signature)
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(ChatMessage(user_msg, role=MessageRole.USER) if isinstance(user_msg, str) else user_msg)
        choice = kwargs.pop("tool_choice", None) or ("required" if tool_required else "auto")
        if isinstance(choice, Mapping):
            choice = choice.get("function", choice).get("name")
        return {
            "messages": messages,
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "tool_choice": choice,
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def get_tool_calls_from_response(self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any) -> list[ToolSelection]:  # noqa: ARG002
        """The tools that a response calls. Raises InvalidInputError if there are none and there have to be."""
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise InvalidInputError(f"the model answered {response.message.content!r:.80} and called no tool; ask with tool_required=True")
        return [
            ToolSelection(tool_id=call.tool_call_id or "", tool_name=call.tool_name, tool_kwargs=call.tool_kwargs if isinstance(call.tool_kwargs, dict) else {})
            for call in calls
        ]


def _account(answer: Answer | AnswerStream) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.usage.prompt_tokens,
        "soft_tokens": answer.usage.soft_tokens,
        "output_tokens": answer.usage.output_tokens,
        "evidence": [item.turn.id for item in answer.evidence],
    }


def _completed(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(text=response.message.content or "", delta=response.delta, raw=response.raw, additional_kwargs=response.additional_kwargs)


async def _anext(pieces: Iterator[_T]) -> _T | None:
    """The next piece, waited for in a thread; None when there are no more."""
    return await asyncio.to_thread(next, pieces, None)
