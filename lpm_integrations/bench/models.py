"""Who answers and who judges: the engine's own backbone, or any LangChain chat model named as `module:factory`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lpm_core.exceptions import InvalidInputError

if TYPE_CHECKING:
    from lpm_core.engine import LPM

__all__ = ["Answerer", "BackboneAnswerer", "ChatAnswerer", "Judge"]

_LABEL = re.compile(r"\b(CORRECT|WRONG)\b")
_JUDGE_PROMPT = """You grade an answer to a question that one person asked another about their earlier conversations.

Question: {question}
Gold answer: {gold}
Given answer: {response}

Be generous: an answer that touches on the same topic as the gold answer is CORRECT, however long it is. For questions about time, an answer that means the \
same date or period is CORRECT, whatever its format. Anything else is WRONG.
Reply with JSON alone: {{"label": "CORRECT"}} or {{"label": "WRONG"}}."""


class Answerer(Protocol):
    """A model that answers a prompt of text."""

    name: str

    def fits(self, prompt: str) -> bool:
        """Whether the prompt fits the model's window."""
        ...

    def answer(self, prompt: str) -> str:
        """The answer."""
        ...


class BackboneAnswerer:
    """The engine's frozen backbone, greedy, without memory: what it knows is in the prompt."""

    def __init__(self, engine: LPM, max_new_tokens: int = 24) -> None:
        self.name = f"{Path(engine.backbone.name).name} {engine.backbone.fingerprint}"
        self._engine, self._room = engine, max_new_tokens

    def fits(self, prompt: str) -> bool:
        """Whether the prompt and an answer fit the backbone's window."""
        return len(self._engine.backbone.chat.render([{"role": "user", "content": prompt}])) + self._room <= self._engine.backbone.window

    def answer(self, prompt: str) -> str:
        """The backbone's answer."""
        return self._engine.ask(None, prompt, max_new_tokens=self._room).text


class ChatAnswerer:
    """A LangChain chat model, made by calling the factory that `module:factory` names. Raises InvalidInputError for a name that is none."""

    def __init__(self, name: str) -> None:
        module, _, factory = name.partition(":")
        try:
            self._model: Any = getattr(import_module(module), factory)()
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise InvalidInputError(
                f"chat model {name!r}: {error}. Name a function without arguments that returns a LangChain chat model, as module:factory"
            ) from error
        if not hasattr(self._model, "invoke"):
            raise InvalidInputError(f"chat model {name!r} gave a {type(self._model).__name__}, which has no invoke(); return a LangChain chat model")
        self.name = name

    def fits(self, prompt: str) -> bool:  # noqa: ARG002 (the protocol's signature)
        """Always: such models take long prompts, and say so themselves where they do not."""
        return True

    def answer(self, prompt: str) -> str:
        """The model's answer to the prompt as one message."""
        return self.reply([{"role": "user", "content": prompt}])[0]

    def reply(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, int | None]:
        """The model's answer to messages, and the tokens of its prompt if it counts them."""
        answer = self._model.invoke([dict(message) for message in messages])
        content = answer.content
        text = content if isinstance(content, str) else "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)
        usage = getattr(answer, "usage_metadata", None)
        return text.strip(), usage["input_tokens"] if usage else None


class Judge:
    """J of the Mem0 protocol: a chat model that labels answers CORRECT or WRONG, lenient on topic and date format."""

    def __init__(self, model: Answerer) -> None:
        self.name = model.name
        self._model = model

    def score(self, question: str, gold: str, response: str) -> int:
        """1 for CORRECT, 0 for WRONG. Raises InvalidInputError if the model says neither or both."""
        said = self._model.answer(_JUDGE_PROMPT.format(question=question, gold=gold, response=response))
        begin, end = said.find("{"), said.rfind("}")
        try:
            label = str(json.loads(said[begin : end + 1])["label"])
        except (ValueError, KeyError, TypeError):
            found = set(_LABEL.findall(said))
            label = found.pop() if len(found) == 1 else ""
        if label not in ("CORRECT", "WRONG"):
            raise InvalidInputError(f"the judge {self.name!r} said {said[:80]!r}, which is neither CORRECT nor WRONG: choose a model that follows instructions")
        return int(label == "CORRECT")
