"""One agent, two users: who is asking is said by the call's context. Offline, on the embedded default."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver

from lpm_integrations.langchain import LPMMiddleware


@dataclass
class Who:
    """The context of a call."""

    user_id: str


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        memory = LPMMiddleware(store=f"sqlite:///{Path(folder) / 'memory.db'}")
        agent = create_agent(memory.as_chat_model(), [], middleware=[memory], context_schema=Who, checkpointer=InMemorySaver())

        def say(user: str, thread: str, text: str) -> None:
            state = agent.invoke({"messages": [("user", text)]}, {"configurable": {"thread_id": f"{user}/{thread}"}}, context=Who(user))
            print(f"  {user}: {text}\n  agent: {state['messages'][-1].text}")

        print("First session")
        say("ann", "1", "My dog is called Pixel.")
        say("bob", "1", "My dog is called Rex.")
        print("Another session, days later")
        say("ann", "2", "What is my dog called?")
        say("bob", "2", "What is my dog called?")
        say("eve", "2", "What is my dog called?")
        memory.engine.close()


if __name__ == "__main__":
    main()
