"""LlamaIndex agents with a memory that outlives them: offline, on the embedded default.

The first agent runs on the embedded model, which reads the user's soft tokens. The second runs on another LLM (here a
scripted one, so that nothing is downloaded), which reads the remembered turns as text. Both have a tool.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context

from lpm_integrations.llama_index import LPMMemory


def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def other_llm(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """Stands for any LLM that reads text: it shows what it was given, and calls the tool once."""
    if messages[-1].role is MessageRole.TOOL:
        return ChatMessage(f"{messages[-1].content}", role=MessageRole.ASSISTANT)
    print("\n".join(f"    | {message.role.value}: {message.content}" for message in messages))
    return ChatMessage([ToolCallBlock(tool_call_id="1", tool_name="weather", tool_kwargs={"city": "Lisbon"})], role=MessageRole.ASSISTANT)


async def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = f"sqlite:///{Path(folder) / 'memory.db'}"

        print("An agent on the embedded model")
        memory = LPMMemory("ann", store=store, session_id="monday")
        agent = FunctionAgent(tools=[], llm=memory.as_llm())
        context = Context(agent)
        for said in ("My dog is called Rex.", "I live in Lisbon."):
            print(f"  you: {said}\n  agent: {await agent.run(said, memory=memory, ctx=context)}")

        print("  … the context is saved and restored …")
        context = Context.from_dict(agent, context.to_dict())
        question = "What is my dog called?"
        print(f"  you: {question}\n  agent: {await agent.run(question, ctx=context)}")

        print("\nAn agent on another LLM, in a new session, with a tool")
        memory = LPMMemory("ann", store=store, session_id="tuesday", recall="text")
        agent = FunctionAgent(tools=[FunctionTool.from_defaults(weather)], llm=MockFunctionCallingLLM(response_generator=other_llm), streaming=False)
        question = "What is the weather where I live?"
        print(f"  you: {question}\n  it was given:")
        print(f"  agent: {await agent.run(question, memory=memory)}")

        print("\nWhat was stored: what was said, each turn once, without the tool's calls and results")
        for turn in memory.engine.turns("ann"):
            print(f"  {turn.session_id:8} {turn.role:10} {turn.content}")
        memory.engine.close()


if __name__ == "__main__":
    asyncio.run(main())
