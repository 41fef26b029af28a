"""A LlamaIndex chat engine that remembers across sessions: offline, on the embedded default.

Run it with `python examples/04_llama_index_chat.py`, or with `rag` behind it for the same chat on a Chroma RAG memory.
"""

from __future__ import annotations

import os
import sys
import tempfile

from llama_index.core.chat_engine import SimpleChatEngine

from lpm_integrations.llama_index import LPMMemory, RAGMemory


def open_memory(kind: str, session_id: str) -> LPMMemory | RAGMemory:
    """The one line that differs."""
    return RAGMemory("ann", session_id=session_id) if kind == "rag" else LPMMemory("ann", session_id=session_id)


def main(kind: str = "lpm") -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["LPM_HOME"] = folder  # where memories are kept unless they are told otherwise
        print(f"Memory: {kind}\n\nMonday")
        memory = open_memory(kind, "monday")
        engine = SimpleChatEngine.from_defaults(memory=memory, llm=memory.as_llm())
        for said in ("My dog is called Rex.", "I live in Lisbon.", "The weather is awful."):
            print(f"  you: {said}\n  model: {engine.chat(said)}")

        print("\nTuesday, in a new session: its window is empty")
        memory = open_memory(kind, "tuesday")
        engine = SimpleChatEngine.from_defaults(memory=memory, llm=memory.as_llm())
        for question in ("What is my dog called?", "Where do I live?"):
            print(f"  you: {question}\n  model: ", end="")
            for piece in engine.stream_chat(question).response_gen:
                print(piece, end="", flush=True)
            print()

        print("\nWhat the memory gave for the last question")
        for message in memory.get():
            text = (message.content or "").replace("\n", "\n    ")
            print(f"  {message.role.value} {message.additional_kwargs or ''}\n    {text}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
