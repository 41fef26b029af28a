"""Agents of create_agent with memory, the chat model's tools and users, the retriever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from lpm_core import LPM, InvalidInputError, ModelError
from lpm_integrations.langchain import ChatLPM, LPMMemory, LPMMiddleware, LPMRetriever, RAGMemory, RAGMiddleware


@tool
def get_weather(city: str) -> str:
    """Current weather in a city."""
    return f"Secret forecast for {city}: light rain."


@dataclass
class Who:
    user_id: str


class Scripted(GenericFakeChatModel):
    """Any other chat model: says what it is told to, and keeps what it was shown."""

    seen: list[list[BaseMessage]] = Field(default_factory=list)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self.seen.append(list(messages))
        return super()._generate(messages, *args, **kwargs)


def _script(*answers: AIMessage | str) -> Scripted:
    return Scripted(messages=iter([AIMessage(answer) if isinstance(answer, str) else answer for answer in answers]))


def _call(city: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "get_weather", "args": {"city": city}, "id": "1"}])


def _middleware(kind: str, lpm: LPM, folder: Path, user: str | None = None, **options: Any) -> Any:
    """The one line that differs."""
    return LPMMiddleware(user, engine=lpm, **options) if kind == "lpm" else RAGMiddleware(user, path=folder / "rag", **options)


def _said(memory: Any, user: str, session: str = "default") -> list[str]:
    return [str(message.content) for message in memory.memory(user, session).chat_memory.messages]


both = pytest.mark.parametrize("kind", ["lpm", "rag"])
modes = pytest.mark.parametrize("mode", ["sync", "async", "stream", "astream"])


async def _run(agent: Any, text: str, mode: str, **options: Any) -> str:
    given = {"messages": [HumanMessage(text)]}
    match mode:
        case "sync":
            state = agent.invoke(given, **options)
        case "async":
            state = await agent.ainvoke(given, **options)
        case "stream":
            state = list(agent.stream(given, stream_mode="values", **options))[-1]
        case _:
            state = [part async for part in agent.astream(given, stream_mode="values", **options)][-1]
    assert not [message for message in state["messages"] if isinstance(message, SystemMessage)]  # memory is no part of the state
    assert "stream" in mode or "memory_saved" not in state
    return str(state["messages"][-1].text)


@both
@modes
async def test_an_agent_shows_memory_and_stores_a_turn_once_without_tool_output(kind: str, mode: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _middleware(kind, lpm, tmp_path, "ann")
    memory.memory("ann", "monday").save_context({"input": "I live in Lisbon."}, {"output": "Nice!"})
    model = _script(_call("Lisbon"), "It rains.")
    agent = create_agent(model, [get_weather], middleware=[memory], system_prompt="Be brief.")

    answer = await _run(agent, "What is the weather where I live?", mode, config={"configurable": {"thread_id": "tuesday"}})

    assert answer == "It rains."
    assert _said(memory, "ann", "tuesday") == ["What is the weather where I live?", "It rains."]
    first, second = model.seen
    assert isinstance(first[0], SystemMessage)
    assert str(first[0].content).startswith("Be brief.")
    assert "- I live in Lisbon." in str(first[0].content)
    assert [message.type for message in second[1:]] == ["human", "ai", "tool"]


@both
async def test_a_checkpointed_agent_keeps_a_window_and_stores_each_turn_once(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _middleware(kind, lpm, tmp_path, window=2)
    model = _script("One.", "Two.", "Three.", "Four.")
    agent = create_agent(model, [], middleware=[memory], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t", "user_id": "ann"}}

    for text in ("First thing.", "Second thing.", "Third thing.", "Fourth thing."):
        await _run(agent, text, "sync", config=config)

    assert _said(memory, "ann", "t") == ["First thing.", "One.", "Second thing.", "Two.", "Third thing.", "Three.", "Fourth thing.", "Four."]
    assert [message.content for message in model.seen[-1] if message.type != "system"] == ["Third thing.", "Three.", "Fourth thing."]


@both
@pytest.mark.parametrize("way", ["context", "mapping", "config"])
async def test_several_users_on_one_agent_never_see_each_other(kind: str, way: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _middleware(kind, lpm, tmp_path)
    model = _script("Noted.", "Noted.", "?", "?")
    agent: Any = create_agent(model, [], middleware=[memory], context_schema=Who if way == "context" else None)

    async def say(user: str, text: str) -> None:
        options: dict[str, Any] = (
            {"config": {"configurable": {"user_id": user}}} if way == "config" else {"context": Who(user) if way == "context" else {"user_id": user}}
        )
        await _run(agent, text, "async", **options)

    await say("ann", "I live in Lisbon.")
    await say("bob", "I live in Oslo.")
    await say("ann", "Where do I live?")
    await say("bob", "Where do I live?")

    shown = [" ".join(str(message.content) for message in messages) for messages in model.seen]
    assert "Lisbon" in shown[2]
    assert "Oslo" not in shown[2]
    assert "Oslo" in shown[3]
    assert "Lisbon" not in shown[3]


@both
def test_an_agent_without_a_user_says_how_to_name_one(kind: str, lpm: LPM, tmp_path: Path) -> None:
    agent = create_agent(_script("?"), [], middleware=[_middleware(kind, lpm, tmp_path)])

    with pytest.raises(InvalidInputError, match=r"no user id.*context="):
        agent.invoke({"messages": [HumanMessage("Hello.")]})


def test_a_model_without_soft_tokens_is_refused_where_memory_gives_nothing_else(lpm: LPM) -> None:
    agent = create_agent(_script("?"), [], middleware=[LPMMiddleware("ann", engine=lpm, recall="soft")])

    with pytest.raises(ModelError, match=r"recall='auto'"):
        agent.invoke({"messages": [HumanMessage("Hello.")]})

    assert lpm.turns("ann") == []


def test_the_embedded_model_reads_soft_tokens_alone_under_an_agent(lpm: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    lpm.remember("ann", "My dog is called Rex.")
    memory = LPMMiddleware("ann", engine=lpm)
    prompts: list[str] = []
    render = lpm.backbone.chat.render
    monkeypatch.setattr(lpm.backbone.chat, "render", lambda messages, **options: prompts.append(str(messages)) or render(messages, **options))
    agent = create_agent(memory.as_chat_model(), [], middleware=[memory], system_prompt="Be brief.")

    state = agent.invoke({"messages": [HumanMessage("What is my dog called?")]})

    assert state["messages"][-1].text == "Rex"
    assert state["messages"][-1].usage_metadata["input_token_details"]["soft_tokens"] == lpm.weights.config.heads
    assert "Be brief." in prompts[0]
    assert "Rex" not in "".join(prompts)


# ---------------------------------------------------------------- the chat model


class _Person(BaseModel):
    """Facts about a person."""

    name: str
    likes_tea: bool


def test_calls_fit_their_schemas_whatever_the_model_would_say(lpm: LPM) -> None:
    model = ChatLPM(engine=lpm, temperature=2.0, seed=7, max_tokens=120)

    for choice in ("any", "get_weather", {"type": "function", "function": {"name": "get_weather"}}, True):
        answer = model.bind_tools([get_weather], tool_choice=choice).invoke("What is the weather in Oslo?")
        for call in answer.tool_calls:
            assert call["name"] == "get_weather"
            assert list(call["args"]) == ["city"]
    answer = ChatLPM(engine=lpm).bind_tools([get_weather], tool_choice="none").invoke("What is the weather in Oslo?")
    assert not answer.tool_calls


def test_a_tool_choice_that_is_no_tool_is_refused(lpm: LPM) -> None:
    with pytest.raises(InvalidInputError, match=r"'fly'.*get_weather"):
        ChatLPM(engine=lpm).bind_tools([get_weather], tool_choice="fly").invoke("Hello.")


def test_a_schema_that_cannot_be_expressed_is_refused(lpm: LPM) -> None:
    broken = {"type": "function", "function": {"name": "odd", "description": "", "parameters": {"type": "object", "properties": {"a": {"type": "colour"}}}}}

    with pytest.raises(InvalidInputError, match="'odd'"):
        lpm.ask(None, "Hello.", tools=[broken])


def test_markup_in_a_text_is_no_tool_call(lpm: LPM) -> None:
    forged = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    ids = lpm.backbone.chat.text(forged)

    text, calls = lpm.backbone.tool_grammar.split(ids)

    assert not calls
    assert lpm.backbone.chat.decode(text) == forged


@pytest.fixture
def _cache() -> Iterator[None]:
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("cache", [False, True])
def test_one_user_never_gets_the_cached_answer_of_another(lpm: LPM, cache: bool) -> None:
    lpm.remember("ann", "My dog is called Rex.")
    lpm.remember("bob", "My dog is called Bella.")
    model = ChatLPM(engine=lpm, cache=cache)

    answers = [model.invoke("What is my dog called?", {"configurable": {"user_id": user}}).text for user in ("ann", "bob", "ann")]

    assert answers == ["Rex", "Bella", "Rex"]


async def test_users_of_a_batch_and_of_a_stream_come_from_their_configs(lpm: LPM) -> None:
    lpm.remember("ann", "My dog is called Rex.")
    lpm.remember("bob", "My dog is called Bella.")
    model = ChatLPM(engine=lpm)
    configs: Any = [{"configurable": {"user_id": user}} for user in ("ann", "bob")]

    assert [answer.text for answer in model.batch(["What is my dog called?"] * 2, configs)] == ["Rex", "Bella"]
    assert [answer.text for answer in await model.abatch(["What is my dog called?"] * 2, configs)] == ["Rex", "Bella"]
    streamed = [piece async for piece in model.astream("What is my dog called?", configs[1])]
    assert "".join(piece.text for piece in streamed) == "Bella"
    assert sum(piece.usage_metadata["output_tokens"] for piece in streamed if piece.usage_metadata) > 0


# ---------------------------------------------------------------- the retriever


async def test_the_retriever_names_the_turn_that_holds_the_answer(lpm: LPM) -> None:
    for text in ("I live in Lisbon.", "My dog is called Rex.", "I work as a nurse."):
        lpm.remember("ann", text, session_id="monday")
    lpm.remember("bob", "My dog is called Bella.")
    retriever = LPMRetriever("ann", engine=lpm, k=1)

    documents = await retriever.ainvoke("What is my dog called?")

    assert [document.page_content for document in documents] == ["My dog is called Rex."]
    assert documents[0].metadata["session_id"] == "monday"
    assert 0.5 < documents[0].metadata["score"] <= 1.0
    assert retriever.invoke("What is my dog called?") == documents
    assert len(retriever.invoke("What is my dog called?", k=3)) == 3
    assert LPMRetriever("nobody", engine=lpm).invoke("What is my dog called?") == []
    with pytest.raises(InvalidInputError, match="k=0"):
        retriever.invoke("What is my dog called?", k=0)


@both
def test_a_react_agent_reads_memory_as_text_and_only_what_was_said_is_stored(kind: str, lpm: LPM, tmp_path: Path) -> None:
    from langchain_classic.agents import AgentExecutor, create_react_agent
    from langchain_core.prompts import PromptTemplate

    def memory(session: str) -> LPMMemory | RAGMemory:
        keys = {"memory_key": "chat_history", "input_key": "input", "output_key": "output", "session_id": session}
        return LPMMemory("ann", engine=lpm, recall="text", **keys) if kind == "lpm" else RAGMemory("ann", path=tmp_path / "rag", **keys)

    memory("monday").save_context({"input": "I live in Oslo."}, {"output": "Nice!"})
    model = _script("I need the weather.\nAction: get_weather\nAction Input: Oslo", "I know it now.\nFinal Answer: Light rain.")
    prompt = PromptTemplate.from_template("{chat_history}\nTools: {tools}\nNames: {tool_names}\nQuestion: {input}\n{agent_scratchpad}")
    agent = create_react_agent(model, [get_weather], prompt)
    executor = AgentExecutor(agent=agent, tools=[get_weather], memory=memory("tuesday"))

    answer = executor.invoke({"input": "How is the weather where I live?"})["output"]

    assert answer == "Light rain."
    assert "I live in Oslo." in model.seen[0][0].text
    assert "Secret forecast for Oslo" in model.seen[1][0].text
    assert [message.text for message in memory("tuesday").chat_memory.messages] == ["How is the weather where I live?", "Light rain."]
