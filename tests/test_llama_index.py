"""The same chat engine and agent code runs with LPMMemory and RAGMemory by changing one line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockFunctionCallingLLMWithChatMemoryOfLastCall, MockLLM
from llama_index.core.memory import Memory, StaticMemoryBlock
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.chat_store.base_db import MessageStatus
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from lpm_core import LPM, EngineClosedError, InvalidInputError, ModelError
from lpm_core.store import MemoryStore
from lpm_integrations.evidence import SOFT_ONLY
from lpm_integrations.llama_index import LPMLLM, EveryTurnMemory, LPMMemory, LPMMemoryBlock, RAGMemory

_TALK = (
    ("My dog is called Rex.", "How lovely."),
    ("I live in Lisbon.", "Nice!"),
    ("The weather is awful.", "I hope it gets better soon."),
)

pytestmark = [  # of LlamaIndex's agents: they look at every attribute of themselves, and ask whether they run
    pytest.mark.filterwarnings("ignore:.*attribute (is deprecated|on the instance is deprecated)"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step"),
]
both = pytest.mark.parametrize("kind", ["lpm", "rag"])
modes = pytest.mark.parametrize("mode", ["sync", "async", "stream", "astream"])


def _make(kind: str, lpm: LPM, tmp_path: Path, user: str = "ann", **options: Any) -> Any:
    """The one line that differs."""
    return LPMMemory(user, engine=lpm, **options) if kind == "lpm" else RAGMemory(user, path=tmp_path / "rag", **options)


def _talked(kind: str, lpm: LPM, tmp_path: Path, user: str = "ann", **options: Any) -> Any:
    """A memory on Tuesday of someone who talked on Monday."""
    monday = _make(kind, lpm, tmp_path, user, session_id="monday")
    for said, answered in _TALK:
        monday.put_messages([_user(said), _assistant(answered)])
    return _make(kind, lpm, tmp_path, user, session_id="tuesday", **options)


def _user(text: str) -> ChatMessage:
    return ChatMessage(text, role=MessageRole.USER)


def _assistant(text: str) -> ChatMessage:
    return ChatMessage(text, role=MessageRole.ASSISTANT)


def _said(memory: Any) -> list[tuple[str, str | None]]:
    return [(message.role.value, message.content) for message in memory.get_all()]


def _every_turn(tmp_path: Path, session_id: str, *blocks: Any, kind: type[Memory] = EveryTurnMemory, **options: Any) -> Memory:
    """LlamaIndex's Memory on a database whose connections are closed after use."""
    database = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'queue.db'}", poolclass=NullPool)
    return kind.from_defaults(session_id=session_id, memory_blocks=list(blocks), async_engine=database, **options)


def _script(*answers: ChatMessage | str) -> MockFunctionCallingLLMWithChatMemoryOfLastCall:
    """An LLM that gives these answers in turn and keeps the messages it saw last."""
    rest = iter(answers)

    def answer(messages: Sequence[ChatMessage], **_: Any) -> Any:
        given = next(rest)
        return _assistant(given) if isinstance(given, str) else given

    def stream(messages: Sequence[ChatMessage], **_: Any) -> Any:
        return answer(messages)

    return MockFunctionCallingLLMWithChatMemoryOfLastCall(response_generator=stream, is_chat_model=True)


def _call(name: str, **arguments: Any) -> ChatMessage:
    return ChatMessage([ToolCallBlock(tool_call_id="call_1", tool_name=name, tool_kwargs=arguments)], role=MessageRole.ASSISTANT)


def _seen(llm: MockFunctionCallingLLMWithChatMemoryOfLastCall) -> list[tuple[str, str | None]]:
    return [(message.role.value, message.content) for message in llm.last_chat_messages or ()]


async def _chat(engine: Any, message: str, mode: str) -> str:
    if mode == "sync":
        return str(engine.chat(message))
    if mode == "async":
        return str(await engine.achat(message))
    if mode == "stream":
        return "".join(engine.stream_chat(message).response_gen)
    response = await engine.astream_chat(message)
    return "".join([piece async for piece in response.async_response_gen()])


class _Office(BaseRetriever):
    """A retriever that knows one thing."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="The office opens at nine."), score=1.0)]


def _weather(city: str = "Oslo") -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


# ---------------------------------------------------------------- chat engines


@modes
async def test_simple_chat_engine_answers_from_an_earlier_session(mode: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked("lpm", lpm, tmp_path)
    engine = SimpleChatEngine.from_defaults(memory=memory, llm=memory.as_llm())

    answer = await _chat(engine, "What is my dog called?", mode)

    assert "Rex" in answer
    assert _said(memory) == [("user", "What is my dog called?"), ("assistant", answer)]
    assert len(lpm.turns("ann")) == 2 * len(_TALK) + 2


@both
@modes
async def test_simple_chat_engine_shows_any_llm_the_evidence(kind: str, mode: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    llm = _script("Rex.", "Lisbon.")
    engine = SimpleChatEngine.from_defaults(memory=memory, llm=llm, system_prompt="Be brief.")

    await _chat(engine, "What is my dog called?", mode)
    await _chat(engine, "Where do I live?", mode)

    seen = _seen(llm)
    assert seen[0] == ("system", "Be brief.")
    assert "- I live in Lisbon." in str(seen[1][1])
    assert seen[2:] == [("user", "What is my dog called?"), ("assistant", "Rex."), ("user", "Where do I live?")]
    assert _said(memory) == [*seen[2:], ("assistant", "Lisbon.")]


@both
@modes
@pytest.mark.parametrize("engine_class", [ContextChatEngine, CondensePlusContextChatEngine])
async def test_context_engines_store_each_turn_once(kind: str, mode: str, engine_class: Any, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    llm = _script("Rex.", "Lisbon.")
    options = {"skip_condense": True} if engine_class is CondensePlusContextChatEngine else {}
    engine = engine_class.from_defaults(_Office(), memory=memory, llm=llm, **options)

    await _chat(engine, "What is my dog called?", mode)
    await _chat(engine, "Where do I live?", mode)

    seen = _seen(llm)
    assert "The office opens at nine." in str(seen[0][1])
    assert "- I live in Lisbon." in str(seen[1][1])
    assert seen[-1] == ("user", "Where do I live?")
    assert _said(memory) == [("user", "What is my dog called?"), ("assistant", "Rex."), ("user", "Where do I live?"), ("assistant", "Lisbon.")]


@both
@modes
@pytest.mark.parametrize("engine_class", [ContextChatEngine, CondensePlusContextChatEngine])
async def test_context_engines_run_on_the_embedded_model(kind: str, mode: str, engine_class: Any, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    engine = engine_class.from_defaults(_Office(), memory=memory, llm=_llm(memory, lpm))

    await _chat(engine, "What is my dog called?", mode)

    assert [role for role, _ in _said(memory)].count("user") == 1


def _llm(memory: Any, lpm: LPM, **options: Any) -> LPMLLM:
    llm = memory.as_llm(engine=lpm, **options) if isinstance(memory, RAGMemory) else memory.as_llm(**options)
    assert isinstance(llm, LPMLLM)
    return llm


def test_a_chat_history_given_again_is_not_stored_again(lpm: LPM, tmp_path: Path) -> None:
    memory = _make("lpm", lpm, tmp_path)
    history = [ChatMessage("Be brief.", role=MessageRole.SYSTEM), _user("I live in Lisbon."), _assistant("Nice!")]
    llm = _script("Yes.", "No.", "Well.")
    engine = SimpleChatEngine.from_defaults(memory=memory, llm=llm)

    engine.chat("Is it far?", chat_history=history)
    engine.chat("Is it big?", chat_history=[*history, _user("Is it far?"), _assistant("Yes.")])
    assert ("system", "Be brief.") in _seen(llm)
    engine.chat("Hello", chat_history=[])

    assert [turn.content for turn in lpm.turns("ann")] == ["I live in Lisbon.", "Nice!", "Is it far?", "Yes.", "Is it big?", "No.", "Hello", "Well."]
    assert _said(memory) == [("user", "Hello"), ("assistant", "Well.")]


def test_chat_engines_make_the_memory_themselves() -> None:
    engine = SimpleChatEngine.from_defaults(memory_cls=LPMMemory, llm=MockLLM(), chat_history=[_user("I live in Lisbon."), _assistant("Nice!")])

    engine.chat("Where do I live?")

    assert "I live in Lisbon." in [message.content for message in LPMMemory().get_all()]
    LPMMemory().engine.close()


# ---------------------------------------------------------------- agents


@both
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
async def test_function_agent_stores_each_turn_once_and_no_tool_traffic(kind: str, streaming: bool, wrapped: bool, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    llm = MockFunctionCallingLLMWithChatMemoryOfLastCall(is_chat_model=True)
    agent: Any = FunctionAgent(tools=[FunctionTool.from_defaults(_weather)], llm=llm, streaming=streaming, system_prompt="Be brief.")
    runner = AgentWorkflow(agents=[agent]) if wrapped else agent

    await runner.run("What is my dog called?", memory=memory)

    assert [role for role, _ in _seen(llm)] == ["system", "system", "user", "assistant", "tool"]
    assert "- My dog is called Rex." in str(_seen(llm)[1][1])
    assert _said(memory) == [("user", "What is my dog called?"), ("assistant", "Tool calls complete.")]


async def test_an_agent_asks_memory_once_a_turn(lpm: LPM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = _talked("lpm", lpm, tmp_path)
    asked: list[Any] = []
    recall = lpm.recall
    monkeypatch.setattr(lpm, "recall", lambda *args, **options: asked.append(args) or recall(*args, **options))
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(_weather)], llm=MockFunctionCallingLLM(is_chat_model=True))

    await agent.run("What is my dog called?", memory=memory)

    assert len(asked) == 2  # for the question, and once more after the answer is stored


@both
async def test_react_agent_stores_the_answer_without_the_reasoning(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    llm = _script('Thought: I look.\nAction: _weather\nAction Input: {"city": "Rome"}', "Thought: I can answer without using any more tools.\nAnswer: Sunny.")
    agent = ReActAgent(tools=[FunctionTool.from_defaults(_weather)], llm=llm, system_prompt="Be brief.")

    answer = await agent.run("What is my dog called?", memory=memory)

    assert str(answer) == "Sunny."
    assert "- My dog is called Rex." in str(_seen(llm)[1][1])
    assert "It is sunny in Rome." in str(_seen(llm)[-1][1])
    assert _said(memory) == [("user", "What is my dog called?"), ("assistant", "Sunny.")]


@both
async def test_a_handoff_shows_the_next_agent_the_tool_traffic_of_the_turn(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _make(kind, lpm, tmp_path)
    first, second = _script(_call("handoff", to_agent="guide", reason="Rome")), _script("It is sunny.")
    desk = FunctionAgent(name="desk", description="Desk", llm=first, can_handoff_to=["guide"], tools=[])
    guide = FunctionAgent(name="guide", description="Guide", llm=second, tools=[])

    await AgentWorkflow(agents=[desk, guide], root_agent="desk").run("How is Rome?", memory=memory)

    assert [role for role, _ in _seen(second)][-3:] == ["user", "assistant", "tool"]
    assert _said(memory) == [("user", "How is Rome?"), ("assistant", "It is sunny.")]


@pytest.mark.parametrize("agent_class", [FunctionAgent, ReActAgent])
@pytest.mark.parametrize("streaming", [True, False])
async def test_agents_run_on_the_embedded_model_without_history_text(
    agent_class: Any, streaming: bool, lpm: LPM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = _talked("lpm", lpm, tmp_path)
    prompts: list[str] = []
    prompt = lpm.prompt

    def spy(user_id: str | None, messages: Any, **options: Any) -> Any:
        prompts.append(f"{user_id} {messages}")
        return prompt(user_id, messages, **options)

    monkeypatch.setattr(lpm, "prompt", spy)
    agent = agent_class(tools=[FunctionTool.from_defaults(_weather)], llm=memory.as_llm(), streaming=streaming)

    await agent.run("What is my dog called?", memory=memory, max_iterations=3, early_stopping_method="generate")

    assert prompts[0].startswith("ann ")
    assert "Rex" not in prompts[0]
    assert [turn.content for turn in lpm.turns("ann")].count("What is my dog called?") == 1


@both
async def test_a_context_survives_being_saved(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    agent = FunctionAgent(tools=[], llm=_script("Hello."))
    context = Context(agent)
    await agent.run("Hi there.", ctx=context, memory=memory)
    llm = _script("Rex.")
    again = FunctionAgent(tools=[], llm=llm)

    restored = Context.from_dict(again, context.to_dict())
    await again.run("What is my dog called?", ctx=restored)

    kept = await restored.store.get("memory")
    assert kept is not memory
    assert "- My dog is called Rex." in str(_seen(llm)[0][1])
    assert _said(kept) == [("user", "Hi there."), ("assistant", "Hello."), ("user", "What is my dog called?"), ("assistant", "Rex.")]


# ---------------------------------------------------------------- memory


@both
def test_users_never_see_each_other(kind: str, lpm: LPM, tmp_path: Path) -> None:
    _talked(kind, lpm, tmp_path, "ann")
    bob = _make(kind, lpm, tmp_path, "bob")
    bob.put_messages([_user("I like tea."), _assistant("Nice!")])

    assert "Rex" not in str(bob.get("What is my dog called?"))
    assert "Rex" not in str(_llm(bob, lpm).chat([*bob.get("What is my dog called?"), _user("What is my dog called?")]))


async def test_many_users_at_once_stay_apart(lpm: LPM, tmp_path: Path) -> None:
    names = {"ann": "Rex", "bob": "Luna", "cat": "Max"}
    memories = {user: LPMMemory(user, engine=lpm) for user in names}
    llm = LPMLLM(engine=lpm)
    await asyncio.gather(*(memory.aput_messages([_user(f"My dog is called {names[user]}."), _assistant("Nice!")]) for user, memory in memories.items()))

    shown = await asyncio.gather(*(memory.aget("What is my dog called?") for memory in memories.values()))
    await asyncio.gather(*(llm.achat([*messages, _user("What is my dog called?")]) for messages in shown))

    for name, messages in zip(names.values(), shown, strict=True):
        assert name in str(messages)
        assert not any(other in str(messages) for other in names.values() if other != name)


@both
def test_the_window_holds_the_last_messages_of_the_session(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _make(kind, lpm, tmp_path, window=2)
    for said, answered in _TALK:
        memory.put_messages([_user(said), _assistant(answered)])

    head, *window = memory.get("What is my dog called?")

    assert [message.content for message in window] == list(_TALK[-1])
    assert "- My dog is called Rex." in str(head.content)
    assert "The weather is awful." not in str(head.content)
    assert len(memory.get_all()) == 2 * len(_TALK)


@both
def test_a_turn_in_progress_is_shown_with_its_tools_and_travels(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _make(kind, lpm, tmp_path, window=1)
    result = ChatMessage("Sunny.", role=MessageRole.TOOL, additional_kwargs={"tool_call_id": "call_1"})
    memory.put_messages([_user("I live in Lisbon."), _assistant("Nice!"), _user("How is Rome?"), _call("weather", city="Rome"), result])

    restored = type(memory).from_dict(memory.to_dict())

    assert restored.get()[-3:] == memory.get()[-3:] == [_user("How is Rome?"), _call("weather", city="Rome"), result]
    restored.put(_assistant("It is sunny."))
    assert [message.content for message in restored.get()][-1:] == ["It is sunny."]
    assert [role for role, _ in _said(restored)] == ["user", "assistant", "user", "assistant"]


@both
def test_get_changes_nothing_and_gives_copies(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    memory.put(_user("What is my dog called?"))
    before = memory.to_dict(), memory.get()

    for message in memory.get():
        message.blocks = [TextBlock(text="overwritten")]

    assert (memory.to_dict(), memory.get()) == before


@both
def test_the_question_is_the_input_or_the_last_message_of_the_user(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)
    memory.put_messages([_user("Where do I live?"), _assistant("In a city.")])

    assert "Lisbon" in str(memory.get())
    assert "Lisbon" in str(memory.get(input="  "))
    assert "Rex" in str(memory.get("What is my dog called?"))


@both
def test_reset_forgets_this_session_of_this_user_only(kind: str, lpm: LPM, tmp_path: Path) -> None:
    _talked(kind, lpm, tmp_path, "bob")
    memory = _talked(kind, lpm, tmp_path)
    memory.put_messages([_user("I like tea."), _assistant("Nice!"), _user("Hi")])

    memory.reset()

    assert memory.get_all() == []
    assert "tea" not in str(memory.get("What do I like?"))
    assert "Rex" in str(memory.get("What is my dog called?"))
    assert len(_make(kind, lpm, tmp_path, "bob", session_id="monday").get_all()) == 2 * len(_TALK)


@both
def test_tool_traffic_instructions_and_own_messages_are_never_stored(kind: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked(kind, lpm, tmp_path)

    memory.put_messages([*memory.get("What is my dog called?"), ChatMessage("Be brief.", role=MessageRole.SYSTEM), _user("  "), _call("weather")])
    memory.put(ChatMessage("Sunny.", role=MessageRole.TOOL))

    assert [role for role, _ in _said(memory)] == ["system", "user", "assistant", "tool"]
    assert _make(kind, lpm, tmp_path, session_id="tuesday").get_all() == []


def test_soft_recall_gives_a_marker_and_no_text(lpm: LPM, tmp_path: Path) -> None:
    memory = _talked("lpm", lpm, tmp_path, recall="soft")

    messages = memory.get("What is my dog called?")

    assert [message.content for message in messages] == [SOFT_ONLY]
    assert messages[0].additional_kwargs == {"lpm": {"user_id": "ann", "store_id": lpm.store.id}}
    assert "Rex" in str(LPMLLM(engine=lpm).chat([*messages, _user("What is my dog called?")]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the chat engine's own thread raises it, too
@modes
@pytest.mark.parametrize("engine_class", [SimpleChatEngine, ContextChatEngine, CondensePlusContextChatEngine])
@pytest.mark.parametrize("kind", [MockLLM, MockFunctionCallingLLM])
async def test_an_llm_without_soft_tokens_is_refused_with_soft_recall(kind: Any, engine_class: Any, mode: str, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked("lpm", lpm, tmp_path, recall="soft")
    llm = kind(is_chat_model=True)
    engine = engine_class.from_defaults(**{} if engine_class is SimpleChatEngine else {"retriever": _Office()}, memory=memory, llm=llm)

    with pytest.raises(ModelError, match=r"'Mock\w*' takes none.*recall='auto'.*as_llm\(\)"):
        await _chat(engine, "What is my dog called?", mode)

    assert [turn.content for turn in lpm.turns("ann", session_id="tuesday")].count("What is my dog called?") <= 1
    assert "Rex" in str(memory.as_llm().chat([*memory.get("What is my dog called?"), _user("What is my dog called?")]))
    assert llm.chat([_user("Hello.")])  # without such a memory it answers as before


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("agent_class", [FunctionAgent, ReActAgent])
async def test_an_agent_without_soft_tokens_is_refused_with_soft_recall(agent_class: Any, streaming: bool, lpm: LPM, tmp_path: Path) -> None:
    memory = _talked("lpm", lpm, tmp_path, recall="soft")
    agent = agent_class(tools=[], llm=MockFunctionCallingLLM(is_chat_model=True), streaming=streaming, system_prompt="Be brief.")

    with pytest.raises(Exception, match=r"takes none.*recall='auto'"):  # a workflow wraps what its steps raise
        await agent.run("What is my dog called?", memory=memory)


async def test_an_llm_without_soft_tokens_is_refused_with_a_soft_block(lpm: LPM, tmp_path: Path) -> None:
    lpm.remember("ann", "My dog is called Rex.")
    memory = _every_turn(tmp_path, "s", LPMMemoryBlock("ann", engine=lpm, recall="soft"))
    asked = [*await memory.aget("What is my dog called?"), _user("What is my dog called?")]

    with pytest.raises(ModelError, match="takes none"):
        await MockLLM(is_chat_model=True).achat(asked)


def test_text_recall_gives_text_and_no_marker(lpm: LPM, tmp_path: Path) -> None:
    message = _talked("lpm", lpm, tmp_path, recall="text").get("What is my dog called?")[0]

    assert "Rex" in str(message.content)
    assert message.additional_kwargs == {}


def test_a_forgotten_turn_leaves_the_window(lpm: LPM) -> None:
    memory = LPMMemory("ann", engine=lpm)
    memory.put_messages([_user("I live in Lisbon."), _assistant("Nice!")])

    lpm.forget("ann", turn_ids=[lpm.turns("ann")[0].id])

    assert "Lisbon" not in f"{memory.get('Where do I live?')} {memory.to_dict()}"


def test_memory_without_arguments_is_found_again_after_a_restart() -> None:
    memory = LPMMemory()
    memory.put_messages([_user("My dog is called Rex."), _assistant("Nice!")])
    saved = memory.to_dict()
    memory.engine.close()

    restored = LPMMemory.from_dict(saved)

    assert "Rex" in str(restored.as_llm().complete("What is my dog called?"))
    restored.engine.close()


def test_a_memory_saved_on_a_store_that_is_gone_says_so(embedded: LPM) -> None:
    with embedded.on_store("sqlite://") as engine:
        saved = LPMMemory("ann", engine=engine).to_dict()

    with pytest.raises(InvalidInputError, match="store=URL"):
        LPMMemory.from_dict(saved).get("Hi")


def test_rag_memory_takes_any_embedding_and_asks_for_it_after_a_restore(tmp_path: Path) -> None:
    memory = RAGMemory("ann", path=tmp_path / "rag", embedding=MockEmbedding(embed_dim=3), window=0)
    memory.put_messages([_user("I live in Lisbon."), _assistant("Nice!")])

    restored = RAGMemory.from_dict(memory.to_dict())

    with pytest.raises(InvalidInputError, match="MockEmbedding"):
        restored.get("Where do I live?")
    restored.embedding = MockEmbedding(embed_dim=3)
    assert "Lisbon" in str(restored.get("Where do I live?"))


# ---------------------------------------------------------------- block


@modes
async def test_every_turn_reaches_the_block_once(mode: str, lpm: LPM, tmp_path: Path) -> None:
    lpm.remember("ann", "My dog is called Rex.", session_id="monday")
    memory = _every_turn(tmp_path, "tuesday", LPMMemoryBlock("ann", engine=lpm), token_limit=60, token_flush_size=20)
    llm = _script("Rex.", "I hope it gets better soon.", "That is a pity.")
    engine = SimpleChatEngine.from_defaults(memory=memory, llm=llm)

    await _chat(engine, "What is my dog called?", mode)
    assert "- My dog is called Rex." in str(_seen(llm)[0][1])
    await _chat(engine, "The weather is awful today, and it was awful yesterday, and the day before.", mode)
    await _chat(engine, "It is really raining all the time in this town.", mode)

    assert len(await memory.aget_all()) == 6
    assert len(await memory.aget_all(MessageStatus.ACTIVE)) < 6
    assert [turn.content for turn in lpm.turns("ann", session_id="tuesday")] == [message.content for message in await memory.aget_all()]


async def test_a_block_in_a_plain_memory_takes_the_overflow(lpm: LPM, tmp_path: Path) -> None:
    memory = _every_turn(tmp_path, "s", LPMMemoryBlock("ann", engine=lpm), kind=Memory, token_limit=20, token_flush_size=5)

    for said, answered in _TALK:
        await memory.aput_messages([_user(said), _assistant(answered)])

    stored = [turn.content for turn in lpm.turns("ann", session_id="s")]
    assert stored[:2] == list(_TALK[0])
    assert len(stored) == len(set(stored))


async def test_a_block_beside_others_lets_them_speak_and_gives_the_soft_tokens(lpm: LPM, tmp_path: Path) -> None:
    lpm.remember("ann", "My dog is called Rex.")
    tone = StaticMemoryBlock(name="tone", static_content=[TextBlock(text="Be kind.")])
    memory = _every_turn(tmp_path, "s", LPMMemoryBlock("ann", engine=lpm), tone)

    shown = await memory.aget("What is my dog called?")
    user_id, prepared = LPMLLM(engine=lpm)._prepare([*shown, _user("What is my dog called?")])

    assert user_id == "ann"
    assert "Be kind." in str(prepared)
    assert "Rex" not in str(prepared)


async def test_resetting_an_every_turn_memory_forgets_its_session(lpm: LPM, tmp_path: Path) -> None:
    memory = _every_turn(tmp_path, "s", LPMMemoryBlock("ann", engine=lpm))
    await memory.aput(_user("I live in Lisbon."))
    await memory.aset([_user("I live in Lisbon."), _assistant("Nice!")])
    lpm.remember("ann", "I like tea.", session_id="other")
    assert [turn.content for turn in lpm.turns("ann", session_id="s")] == ["I live in Lisbon.", "Nice!"]

    await memory.areset()

    assert [turn.content for turn in lpm.turns("ann")] == ["I like tea."]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the chat engine's own thread raises it, too
def test_an_engine_closed_in_mid_stream_says_so_and_stores_nothing_twice(lpm: LPM, tmp_path: Path) -> None:
    memory = _make("lpm", lpm, tmp_path)
    chat = SimpleChatEngine.from_defaults(llm=memory.as_llm(), memory=memory)
    direct = memory.as_llm().stream_chat([_user("Say something long.")])
    next(direct)
    pieces = chat.stream_chat("I live in Lisbon.").response_gen
    next(pieces)

    lpm.close()

    for stream in (pieces, direct):
        with pytest.raises(EngineClosedError):
            list(stream)
    with pytest.raises(EngineClosedError):
        chat.chat("I live in Lisbon.")
    with LPM(lpm.backbone, lpm.weights, MemoryStore(f"sqlite:///{tmp_path / 'memory.db'}")) as again:
        assert [turn.content for turn in again.turns("ann")] == ["I live in Lisbon."]
