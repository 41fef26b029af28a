"""What the wrappers of LangChain and LlamaIndex cost a turn: everything but the engine's own calls."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lpm_core.engine import LPM

__all__ = ["measure_wrappers"]

_CALLS = ("remember", "recall", "ask", "stream", "prompt", "turns")


class _Clock:
    """Milliseconds spent inside an engine's calls, outermost ones only."""

    def __init__(self, engine: LPM) -> None:
        self.spent, self._depth = 0.0, 0
        for name in _CALLS:
            setattr(engine, name, self._timed(getattr(engine, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            self._depth += 1
            begin = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.spent += (time.perf_counter() - begin) * 1000

        return timed


def _langchain(engine: LPM) -> Callable[[str], Any]:
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

    from lpm_integrations.langchain import LPMMemory

    memory = LPMMemory("ann", engine=engine, return_messages=True, recall="soft")
    chain = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")]) | memory.as_chat_model(max_tokens=8)

    def turn(text: str) -> None:
        inputs = {"input": text}
        answer = chain.invoke({**inputs, **memory.load_memory_variables(inputs)})
        memory.save_context(inputs, {"output": answer.text or "-"})

    return turn


def _llama_index(engine: LPM) -> Callable[[str], Any]:
    from llama_index.core.chat_engine import SimpleChatEngine

    from lpm_integrations.llama_index import LPMMemory

    memory = LPMMemory("ann", engine=engine, recall="soft")
    return SimpleChatEngine.from_defaults(memory=memory, llm=memory.as_llm(max_tokens=8)).chat


def measure_wrappers(engine: LPM, turns: int) -> dict[str, dict[str, float]]:
    """Per toolkit: milliseconds a turn, and how many of them are not the engine's; median and 95th percentile over `turns`."""
    figures: dict[str, dict[str, float]] = {}
    for name, make in (("langchain", _langchain), ("llama_index", _llama_index)):
        with tempfile.TemporaryDirectory(prefix="lpm-overhead-") as folder, engine.on_store(f"sqlite:///{Path(folder) / 'memory.db'}") as own:
            clock = _Clock(own)
            turn = make(own)
            totals, wrappers = [], []
            for number in range(turns + 3):
                spent, begin = clock.spent, time.perf_counter()
                turn(f"Number {number} is on my list." if number % 2 else "What is my dog called?")
                total = (time.perf_counter() - begin) * 1000
                if number >= 3:  # the first ones import and warm up
                    totals.append(total)
                    wrappers.append(total - (clock.spent - spent))
            figures[name] = {
                "turn_ms_p50": statistics.median(totals),
                "wrapper_ms_p50": statistics.median(wrappers),
                "wrapper_ms_p95": statistics.quantiles(wrappers, n=20)[-1],
            }
    return figures
