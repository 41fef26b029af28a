"""LPM as a retriever beside any chat model: it names the turns, your model reads them as text. Offline."""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain_core.language_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from lpm_core import LPM
from lpm_integrations.langchain import LPMRetriever

TOLD = ["I live in Bergen.", "My dog is called Pixel.", "I work as a nurse.", "My sister's name is Clara.", "I'm allergic to peanuts."]


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, LPM.from_pretrained(store=f"sqlite:///{Path(folder) / 'memory.db'}") as lpm:
        for text in TOLD:
            lpm.remember("ann", text)
        retriever = LPMRetriever("ann", engine=lpm, k=2)

        question = "What must not be in my lunch?"
        print(f"{question}")
        for document in retriever.invoke(question):
            print(f"  {document.metadata['score']:5.1%}  {document.page_content}")

        print("\nWhat memory makes of a plainer question")
        print(lpm.explain("ann", "What am I allergic to?"))

        your_model = FakeListChatModel(responses=["(your model answers here)"])  # any chat model: OpenAI, Ollama, …
        prompt = ChatPromptTemplate.from_template("What the user said before:\n{context}\n\nQuestion: {question}")
        context = retriever | (lambda documents: "\n".join(document.page_content for document in documents))
        chain = {"context": context, "question": RunnablePassthrough()} | prompt
        print("\nWhat your model reads")
        print(chain.invoke(question).to_string())
        print((chain | your_model).invoke(question).text)


if __name__ == "__main__":
    main()
