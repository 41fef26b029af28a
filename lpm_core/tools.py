"""Tool calls in Qwen3's format: what an answer may call, enforced while it is generated, and what it did call.

A call begins with the model's own `<tool_call>` token. The same letters in a text that the model repeats are text, so
nothing that a user or a remembered turn says can make up a call.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lpm_core.exceptions import InvalidInputError, ModelError
from lpm_core.memory import ToolCall

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from transformers import PreTrainedTokenizerFast

__all__ = ["Constraint", "ToolGrammar", "check_tools"]

_JSON_STYLE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


def check_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools as `{"type": "function", "function": {"name", "description", "parameters"}}`, each name once."""
    checked: list[dict[str, Any]] = []
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"a tool has no name: {str(tool)[:80]!r}; pass a JSON schema with name, description and parameters")
        if any(name == other["function"]["name"] for other in checked):
            raise InvalidInputError(f"two tools are called {name!r}; give each a name of its own")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        kept = {"name": name, "description": str(function.get("description") or ""), "parameters": parameters}
        try:
            json.dumps(kept, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise InvalidInputError(f"the tool {name!r:.80} holds what JSON or UTF-8 cannot; pass a plain JSON schema") from None
        if not isinstance(parameters, Mapping):
            raise InvalidInputError(f"the parameters of tool {name!r:.80} are {str(parameters)[:80]!r}, not a JSON schema of an object")
        checked.append({"type": "function", "function": {**kept, "parameters": dict(parameters)}})
    return checked


class Constraint:
    """Lets a generation go only where a grammar allows."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def apply(self, logits: Tensor) -> Tensor:
        """Logits [V] with -inf where no token may come."""
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)[: len(logits)] > 0
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def accept(self, token: int) -> bool:
        """Take one token; false when nothing can follow it."""
        self._matcher.consume_token(token)
        return not self._matcher.is_stopped()


class ToolGrammar:
    """Grammars of tool calls for one tokenizer; `vocabulary` is the number of logits, `ends` the tokens that end an answer.

    spaced: the model puts a space before the texts of arguments (see ChatFormat.arguments), which is not theirs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary: int, ends: Sequence[int], *, spaced: bool = False) -> None:
        from llguidance.hf import from_tokenizer

        known = tokenizer.get_vocab()
        if not {"<tool_call>", "</tool_call>"} <= known.keys():
            raise ModelError("the tokenizer of this model has no <tool_call> token, so it cannot call tools; use a chat model of the Qwen3 family")
        self._tokenizer, self._spaced = tokenizer, spaced
        self._begin, self._end, self._thought = known["<tool_call>"], known["</tool_call>"], known.get("</think>")
        self._grammar = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(ends))

    def constraint(self, tools: Sequence[Mapping[str, Any]], choice: str = "auto", *, thinking: bool = False) -> Constraint:
        """What an answer with these (checked) tools may be. choice: "auto", "required", or the name of the one to call."""
        from llguidance import LLMatcher

        names = [tool["function"]["name"] for tool in tools]
        if choice not in ("auto", "required", *names):
            raise InvalidInputError(f"the tool choice {choice!r} is none of: auto, none, required, {', '.join(names)}")
        kept = [tool for tool in tools if choice in ("auto", "required", tool["function"]["name"])]
        rules = [
            f"start: {'thought ' if thinking and self._thought else ''}{'text calls?' if choice == 'auto' else 'calls'}",
            r"text: /[\s\S]*/",
            r'calls: call ("\n" call)*' if choice == "auto" else "calls: call",
            rf'call: <[{self._begin}]> "\n" body "\n" <[{self._end}]>',
            f"body: {' | '.join(f'body{index}' for index in range(len(kept)))}",
        ]
        if thinking and self._thought:
            rules.append(rf"thought: /[\s\S]*/ <[{self._thought}]> /\n*/")
        for index, tool in enumerate(kept):
            rule = f"body{index}: %json {json.dumps(_call_schema(tool['function']))}"
            if problem := LLMatcher.validate_grammar(f"start: body{index}\n{rule}", self._grammar):
                raise InvalidInputError(f"the parameters of tool {names[index]!r} cannot be expressed: {problem.splitlines()[0]}; use plain JSON Schema")
            rules.append(rule)
        return Constraint(LLMatcher(self._grammar, "\n".join(rules)))

    def split(self, ids: Sequence[int]) -> tuple[list[int], tuple[ToolCall, ...]]:
        """Ids of an answer's text and the calls in it. A call that was cut off stays in the text."""
        text: list[int] = []
        calls: list[ToolCall] = []
        rest = list(ids)
        while self._begin in rest:
            begin = rest.index(self._begin)
            end = rest.index(self._end, begin) if self._end in rest[begin:] else None
            call = None if end is None else self._call(rest[begin + 1 : end])
            if end is None or call is None:
                break
            text += rest[:begin]
            calls.append(call)
            rest = rest[end + 1 :]
        return text + rest, tuple(calls)

    def _call(self, ids: Sequence[int]) -> ToolCall | None:
        try:
            row = json.loads(str(self._tokenizer.decode(list(ids))))
            arguments = {key: value.removeprefix(" ") if self._spaced and isinstance(value, str) else value for key, value in dict(row["arguments"]).items()}
            return ToolCall(str(row["name"]), arguments, f"call_{uuid.uuid4().hex[:24]}")
        except (ValueError, KeyError, TypeError):
            return None


def _opened(schema: Any) -> Any:
    """The schema of an argument; a free text may not begin with a closing bracket, with which small models mean to end the call."""
    free = (
        isinstance(schema, Mapping) and schema.get("type") == "string" and not schema.keys() & {"pattern", "enum", "const", "format", "minLength", "maxLength"}
    )
    return {**schema, "pattern": r"^ ?([^ }\]][\s\S]*)?$"} if free else schema


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of one call; definitions move to its root, where `#/$defs/…` looks for them."""
    parameters = {"type": "object", "additionalProperties": False, **function["parameters"]}
    if isinstance(parameters.get("properties"), Mapping):
        parameters["properties"] = {key: _opened(value) for key, value in parameters["properties"].items()}
    shared = {key: parameters.pop(key) for key in ("$defs", "definitions") if key in parameters}
    return {
        "x-guidance": _JSON_STYLE,
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        **shared,
    }
