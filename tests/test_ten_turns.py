"""One scripted conversation of ten turns through every combination of toolkit, chain or agent, memory, sync and async."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import FunctionTool

from lpm_core import LPM
from lpm_integrations.langchain import LPMMemory, LPMMiddleware, RAGMemory, RAGMiddleware
from lpm_integrations.llama_index import LPMMemory as IndexLPMMemory
from lpm_integrations.llama_index import RAGMemory as IndexRAGMemory

_BETWEEN = (
    "The weather is awful.",
    "I had a busy week.",
    "It's raining again.",
    "I'm a bit tired.",
    "Traffic was terrible this morning.",
    "I slept badly.",
    "I watched TV all evening.",
    "The train was late once more.",
)
_DOGS = {"ann": "Rex", "bob": "Max"}
_QUESTION = "What is my dog called?"

Say = Callable[[str], Awaitable[str]]
"""Says one thing to a chain or an agent and gives back its answer."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*attribute (is deprecated|on the instance is deprecated)"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step"),
]


@tool
def get_weather(city: str) -> str:
    """Current weather in a city."""
    return f"It is sunny in {city}."


def _either(mode: str, now: Callable[[], Any], later: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    return asyncio.to_thread(now) if mode == "sync" else later()


def _lang(kind: str, user: str, lpm: LPM, folder: Path, **options: Any) -> tuple[Any, Any]:
    """The one line that differs, and the model behind it."""
    memory = LPMMemory(user, engine=lpm, window=2, **options) if kind == "lpm" else RAGMemory(user, path=folder / "rag", window=2, **options)
    return memory, memory.as_chat_model(**({} if kind == "lpm" else {"engine": lpm}))


def _conversation_chain(kind: str, user: str, mode: str, lpm: LPM, folder: Path) -> Say:
    from langchain_classic.chains import ConversationChain

    memory, model = _lang(kind, user, lpm, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the chain, not of the memory
        chain = ConversationChain(llm=model, memory=memory)

    async def say(text: str) -> str:
        return str((await _either(mode, lambda: chain.invoke({"input": text}), lambda: chain.ainvoke({"input": text})))["response"])

    return say


def _lcel(kind: str, user: str, mode: str, lpm: LPM, folder: Path) -> Say:
    memory, model = _lang(kind, user, lpm, folder, return_messages=True)
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("known"), MessagesPlaceholder("history"), ("human", "{input}")])

    def known(inputs: dict[str, Any]) -> Any:
        recalled = memory.recalled(inputs["input"], inputs["history"])
        return [recalled] if recalled else []

    def recent(inputs: dict[str, Any]) -> dict[str, Any]:
        return {**inputs, "history": inputs["history"][-2:]}

    steps = RunnableLambda(recent) | RunnablePassthrough.assign(known=RunnableLambda(known)) | prompt | model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the chain, not of the memory
        chain = RunnableWithMessageHistory(steps, lambda _: memory.chat_memory, input_messages_key="input", history_messages_key="history")
    config: Any = {"configurable": {"session_id": "default"}}

    async def say(text: str) -> str:
        return str((await _either(mode, lambda: chain.invoke({"input": text}, config), lambda: chain.ainvoke({"input": text}, config))).text)

    return say


def _agent_executor(kind: str, user: str, mode: str, lpm: LPM, folder: Path) -> Say:
    from langchain_classic.agents import AgentExecutor, create_tool_calling_agent

    memory, model = _lang(kind, user, lpm, folder, return_messages=True, input_key="input", output_key="output")
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}"), MessagesPlaceholder("agent_scratchpad")])
    agent = create_tool_calling_agent(model, [get_weather], prompt)
    executor = AgentExecutor(agent=agent, tools=[get_weather], memory=memory)

    async def say(text: str) -> str:
        return str((await _either(mode, lambda: executor.invoke({"input": text}), lambda: executor.ainvoke({"input": text})))["output"])

    return say


def _create_agent(kind: str, user: str, mode: str, lpm: LPM, folder: Path) -> Say:
    memory: Any = LPMMiddleware(engine=lpm, window=2) if kind == "lpm" else RAGMiddleware(path=folder / "rag", window=2)
    agent: Any = create_agent(
        memory.as_chat_model(**({} if kind == "lpm" else {"engine": lpm})), [get_weather], middleware=[memory], checkpointer=InMemorySaver()
    )
    config = {"configurable": {"user_id": user, "thread_id": f"{user}/1"}}

    async def say(text: str) -> str:
        given = {"messages": [("user", text)]}
        return str((await _either(mode, lambda: agent.invoke(given, config), lambda: agent.ainvoke(given, config)))["messages"][-1].text)

    return say


class _Manual(BaseRetriever):
    """Documents that have nothing to do with the user."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="The office opens at nine."), score=0.5)]


def _index(kind: str, user: str, lpm: LPM, folder: Path) -> tuple[Any, Any]:
    """The one line that differs, and the model behind it."""
    memory: Any = IndexLPMMemory(user, engine=lpm, window=2) if kind == "lpm" else IndexRAGMemory(user, path=folder / "rag", window=2)
    return memory, memory.as_llm(**({} if kind == "lpm" else {"engine": lpm}))


def _chat_engine(engine_class: Any) -> Callable[..., Say]:
    def make(kind: str, user: str, mode: str, lpm: LPM, folder: Path) -> Say:
        memory, llm = _index(kind, user, lpm, folder)
        options = {} if engine_class is SimpleChatEngine else {"retriever": _Manual()}
        engine = engine_class.from_defaults(memory=memory, llm=llm, **options)

        async def say(text: str) -> str:
            return str(await _either(mode, lambda: engine.chat(text), lambda: engine.achat(text)))

        return say

    return make


def _index_agent(workflow: bool) -> Callable[..., Say]:
    def make(kind: str, user: str, mode: str, lpm: LPM, folder: Path) -> Say:
        memory, llm = _index(kind, user, lpm, folder)
        agent: Any = FunctionAgent(
            tools=[FunctionTool.from_defaults(lambda city: f"It is sunny in {city}.", name="get_weather", description="Weather.")], llm=llm
        )
        runner = AgentWorkflow(agents=[agent]) if workflow else agent

        async def say(text: str) -> str:
            if mode == "async":
                return str(await runner.run(text, memory=memory))
            return str(await asyncio.to_thread(lambda: asyncio.run(_run(runner, text, memory))))

        return say

    return make


async def _run(runner: Any, text: str, memory: Any) -> str:
    """A loop of its own: how code without one calls an agent."""
    return str(await runner.run(text, memory=memory))


_FACES: dict[str, Callable[..., Say]] = {
    "ConversationChain": _conversation_chain,
    "LCEL": _lcel,
    "AgentExecutor": _agent_executor,
    "create_agent": _create_agent,
    "SimpleChatEngine": _chat_engine(SimpleChatEngine),
    "ContextChatEngine": _chat_engine(ContextChatEngine),
    "CondensePlusContextChatEngine": _chat_engine(CondensePlusContextChatEngine),
    "FunctionAgent": _index_agent(workflow=False),
    "AgentWorkflow": _index_agent(workflow=True),
}


def _stored(kind: str, face: str, user: str, lpm: LPM, folder: Path) -> list[str]:
    if kind == "lpm":
        return [turn.content for turn in lpm.turns(user)]
    from lpm_integrations.chroma import ChromaRetrieval

    with ChromaRetrieval(folder / "rag") as retrieval:
        return [hit.text for hit in retrieval.get_all(user)]


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("kind", ["lpm", "rag"])
@pytest.mark.parametrize("face", _FACES)
async def test_turn_one_is_answered_at_turn_ten(face: str, kind: str, mode: str, lpm: LPM, tmp_path: Path) -> None:
    talks = {user: _FACES[face](kind, user, mode, lpm, tmp_path) for user in _DOGS}
    answers: dict[str, str] = {}
    for user, say in talks.items():
        for text in (f"My dog is called {_DOGS[user]}.", *_BETWEEN):
            await say(text)
    for user, say in talks.items():
        answers[user] = await say(_QUESTION)

    for user, dog in _DOGS.items():
        assert dog in answers[user]
        assert not [other for other in _DOGS.values() if other != dog and other in answers[user]]
        stored = _stored(kind, face, user, lpm, tmp_path)
        for text in (f"My dog is called {dog}.", *_BETWEEN, _QUESTION):
            assert stored.count(text) == 1
        assert len(stored) == 20
