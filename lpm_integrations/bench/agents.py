"""Tool-calling agents that need a remembered fact: whether LangChain's agent on the soft path puts it into the call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lpm_core.training.people import Person, Question, Tool
from lpm_integrations.bench.cases import history_of, probe_corpus, tell

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from lpm_core.engine import LPM

__all__ = ["AgentTrial", "agent_requests", "measure_agents"]

_LONGEST = 64  # tokens of an agent's message
_ROUNDS = 8  # of model and tools, in LangGraph's steps


@dataclass(frozen=True)
class AgentTrial:
    """A person, and their request, which the `question.tool` answers only with a fact that they told."""

    user_id: str
    person: Person
    question: Question


def agent_requests(count: int, seed: int, *, facts: int = 8, split: str = "test") -> Iterator[AgentTrial]:
    """Requests of `count` people of a split: other users, values and wordings of requests than in training. One request each, two tools at hand.

    Raises InvalidInputError for another split than test and validation.
    """
    corpus = probe_corpus(split)
    found = 0
    for number, person in enumerate(corpus.people(seed, 8 * count, facts, questions=12, tools=2)):
        fitting = [question for question in person.questions if question.tool and question.evidence is not None]
        if fitting and found < count:
            found += 1
            yield AgentTrial(f"agent-{seed}-{number}", person, fitting[0])


def measure_agents(engine: LPM, trials: list[AgentTrial], *, on_trial: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Share of trials in which an agent of `create_agent` calls the right tool with the remembered value, and of final answers with its result.

    Arms: `lpm`; `shuffled` reads the next person's memory, `none` that of nobody.
    """
    for trial in trials:
        tell(engine, trial.user_id, history_of(trial.person))
    rows: list[dict[str, Any]] = []
    for number, trial in enumerate(trials):
        readers = {"lpm": trial.user_id, "shuffled": trials[(number + 1) % len(trials)].user_id, "none": "nobody"}
        for arm, reader in readers.items():
            rows.append({"arm": arm, "request": trial.question.text, "value": trial.question.value, **_run(engine, reader, trial)})
        on_trial()
    arms = {
        arm: {name: sum(row[name] for row in rows if row["arm"] == arm) / len(trials) for name in ("called", "filled", "answered")}
        for arm in ("lpm", "shuffled", "none")
    }
    return {"readers": arms, "trials": rows}


def _run(engine: LPM, reader: str, trial: AgentTrial) -> dict[str, Any]:
    """One request through an agent: whether the tool was called, with the value; and whether the answer has the tool's result."""
    from langchain.agents import create_agent

    from lpm_integrations.langchain import ChatLPM

    calls: list[tuple[str, str]] = []
    tools = [_tool(tool, trial.question.result, calls) for tool in trial.person.tools]
    agent: Any = create_agent(ChatLPM(engine=engine, user_id=reader, max_tokens=_LONGEST), tools)
    try:
        state = agent.invoke({"messages": [("user", trial.question.text)]}, {"recursion_limit": _ROUNDS})
        answer = state["messages"][-1].text
    except RecursionError as error:  # the agent calls on and on
        answer = str(error)
    assert trial.question.tool  # noqa: S101 (agent_requests picks such)
    mine = [value for name, value in calls if name == trial.question.tool.name]
    filled = any(value.strip().lower() == trial.question.value.lower() for value in mine)
    result = re.sub(r'^\{"[^"]+": "?|"?\}$', "", trial.question.result)
    return {"called": bool(mine), "filled": filled, "answered": filled and result.lower() in answer.lower(), "calls": calls, "answer": answer}


def _tool(tool: Tool, result: str, calls: list[tuple[str, str]]) -> BaseTool:
    """A tool that notes what it is called with."""
    from langchain_core.tools import StructuredTool

    def call(**arguments: str) -> str:
        calls.append((tool.name, str(arguments.get(tool.parameter, ""))))
        return result

    return StructuredTool.from_function(call, name=tool.name, description=tool.description, args_schema=tool.schema["function"]["parameters"])
