"""Refuses LLMs without soft tokens where a memory gives nothing else: they would answer as if nobody had said anything."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from inspect import BoundArguments
from typing import Any, NoReturn

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, ContentBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index_instrumentation import get_dispatcher

from lpm_integrations.evidence import SOFT_ONLY, without_soft_tokens
from lpm_integrations.llama_index.messages import text_of

__all__ = ["guard_soft_tokens"]


class _Unreadable(list[ContentBlock]):
    """Content that a model has no use for: reading it raises ModelError, which names the model and the way out."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model

    def _refuse(self, *_: object) -> NoReturn:
        raise without_soft_tokens(self._model, "as_llm")

    def __iter__(self) -> Iterator[ContentBlock]:
        self._refuse()

    __len__ = __getitem__ = _refuse


class _ReadAll(BaseCallbackHandler):
    """Reads every message before its LLM does, which may look at the last one alone."""

    def __init__(self) -> None:
        super().__init__([], [])

    def on_event_start(self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", parent_id: str = "", **_: Any) -> str:  # noqa: ARG002 (the base class's signature)
        for message in (payload or {}).get(EventPayload.MESSAGES, ()):
            text_of(message)
        return event_id

    def on_event_end(self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **_: Any) -> None:
        pass

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        pass


class _SoftTokensOnly(NullSpanHandler):
    """Looks at every call of an LLM before it runs, because a memory cannot see the LLM that reads it.

    LlamaIndex swallows what a span handler raises. So this one makes the memory's message unreadable for any LLM but
    ours, and has it read by a callback, whose errors do stop the call.
    """

    def span_enter(self, id_: str, bound_args: BoundArguments, instance: Any | None = None, *_: Any, **__: Any) -> None:  # noqa: ARG002 (the base class's signature)
        """Before another LLM reads messages, make those that stand for soft tokens alone unreadable."""
        if not isinstance(instance, BaseLLM) or (model := instance.class_name()) == "LPMLLM":
            return
        for message in bound_args.arguments.get("messages", ()):
            if isinstance(message, ChatMessage) and SOFT_ONLY in text_of(message):
                message.blocks = _Unreadable(model)
                _read_all(instance.callback_manager)


def _read_all(manager: CallbackManager) -> None:
    if not any(isinstance(handler, _ReadAll) for handler in manager.handlers):
        manager.add_handler(_ReadAll())


@cache
def guard_soft_tokens() -> None:
    """From now on, in this process. A process without such a memory has no handler of ours."""
    get_dispatcher().add_span_handler(_SoftTokensOnly())
