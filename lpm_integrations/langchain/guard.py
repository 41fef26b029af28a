"""Refuses models without soft tokens where a memory gives nothing else: they would answer as if nobody had said anything."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from functools import cache
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.tracers.context import register_configure_hook

from lpm_integrations.evidence import SOFT_ONLY, without_soft_tokens
from lpm_integrations.langchain.messages import text_of

__all__ = ["guard_soft_tokens"]


class _SoftTokensOnly(BaseCallbackHandler):
    """Looks at every prompt before its model runs; a callback, because a memory cannot see the model of its chain."""

    raise_error = True
    run_inline = True
    ignore_chain = ignore_agent = ignore_retriever = True

    def on_chat_model_start(self, serialized: Any, messages: list[list[BaseMessage]], **run: Any) -> None:  # noqa: ARG002 (the base class's signature)
        self._check((text_of(message) for row in messages for message in row), run)

    def on_llm_start(self, serialized: Any, prompts: list[str], **run: Any) -> None:  # noqa: ARG002 (as above)
        self._check(prompts, run)

    @staticmethod
    def _check(texts: Iterable[str], run: dict[str, Any]) -> None:
        kind = run.get("invocation_params", {}).get("_type")
        if kind != "lpm" and any(SOFT_ONLY in text for text in texts):
            raise without_soft_tokens(str(kind or run.get("name")), "as_chat_model")


_GUARD: ContextVar[Any] = ContextVar("lpm_soft_tokens_only", default=_SoftTokensOnly())  # noqa: B039 (it holds no state)


@cache
def guard_soft_tokens() -> None:
    """From now on, in this process. A process without such a memory has no handler of ours."""
    register_configure_hook(_GUARD, inheritable=False)
