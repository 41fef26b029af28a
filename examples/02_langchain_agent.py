"""A LangChain agent whose tool needs a fact that was told in another session. Offline, on the embedded default."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from lpm_integrations.langchain import LPMMiddleware


@tool
def get_weather(city: str) -> str:
    """Current weather in a city."""
    return json.dumps({"weather": "light rain" if city == "Oslo" else "no data"})


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        memory = LPMMiddleware("ann", store=f"sqlite:///{Path(folder) / 'memory.db'}")
        agent = create_agent(memory.as_chat_model(), [get_weather], middleware=[memory])

        for session, said in (("monday", "I live in Oslo."), ("tuesday", "Do I need a coat in my city today?")):
            print(f"{session}\n  you: {said}")
            state = agent.invoke({"messages": [("user", said)]}, {"configurable": {"thread_id": session}})
            for message in state["messages"][1:]:
                if isinstance(message, AIMessage) and message.tool_calls:
                    print(f"  agent calls {message.tool_calls[0]['name']}({message.tool_calls[0]['args']})")
                elif isinstance(message, ToolMessage):
                    print(f"  tool: {message.content}")
                else:
                    print(f"  agent: {message.text}")

        print("\nWhat is remembered: what was said, and nothing that a tool put out")
        for turn in memory.engine.turns("ann"):
            print(f"  {turn.session_id:8} {turn.role:10} {turn.content}")
        memory.engine.close()


if __name__ == "__main__":
    main()
