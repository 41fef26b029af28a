"""LPM against RAG in a chain of your own: one line differs. Offline, on the embedded default."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from lpm_integrations.langchain import LPMMemory, RAGMemory

TOLD = ["My name is Annika.", "I live in Bergen.", "I work as a nurse.", "My dog is called Pixel.", "I'm allergic to peanuts."]
ASKED = {"Where do I live?": "Bergen", "What do I do for a living?": "nurse", "What is my dog called?": "Pixel", "What am I allergic to?": "peanuts"}


def chain(memory: LPMMemory | RAGMemory) -> Any:
    """Any chain with a memory: here a prompt with history and a chat model."""
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])
    history = RunnableLambda(lambda inputs: memory.load_memory_variables(inputs)["history"])
    return RunnablePassthrough.assign(history=history) | prompt | memory.as_chat_model()


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name in ("LPM", "RAG"):
            if name == "LPM":
                memory: LPMMemory | RAGMemory = LPMMemory("ann", store=f"sqlite:///{Path(folder) / 'memory.db'}", return_messages=True, window=0)
            else:
                memory = RAGMemory("ann", path=Path(folder) / "rag", return_messages=True, window=0)
            for text in TOLD:
                memory.save_context({"input": text}, {"output": "I see."})
            answers = {question: chain(memory).invoke({"input": question}) for question in ASKED}
            right = sum(answer.text == ASKED[question] for question, answer in answers.items())
            tokens = [answer.usage_metadata["input_tokens"] for answer in answers.values()]
            print(f"{name}: {right} of {len(ASKED)} right, {sum(tokens) / len(tokens):.0f} tokens in front of an answer")
            for question, answer in answers.items():
                print(f"  {question:28} {answer.text}")


if __name__ == "__main__":
    main()
