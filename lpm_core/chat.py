"""Dialogue as token ids: the backbone's chat format, in which content never acts as markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["ChatFormat", "Message", "cut_at", "held_back"]

Message = Mapping[str, Any]
"""One chat message: role, content, and for an assistant perhaps tool_calls."""

_HOLE = "\ue000{}\ue001"  # private-use characters that stand for a message's content while the template is rendered
_HOLES = re.compile("\ue000(\\d+)\ue001")


def _holed(message: Message, hole: Callable[[str], str], arguments: Callable[[Any], str]) -> dict[str, Any]:
    """A message whose texts, and whose calls' names and arguments (as the model writes them), are holes to be filled after rendering."""
    row: dict[str, Any] = {key: hole(value) if isinstance(value, str) and value and key != "role" else value for key, value in message.items()}
    if row.get("tool_calls"):
        functions = [call.get("function", call) for call in row["tool_calls"]]
        row["tool_calls"] = [
            {"type": "function", "function": {"name": hole(function["name"]), "arguments": hole(arguments(function["arguments"]))}} for function in functions
        ]
    return row


class ChatFormat:
    """Encodes text and messages for one tokenizer of the Qwen family (ChatML)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._encode = tokenizer.backend_tokenizer.encode  # the tokenizer's own call is not safe in threads
        self._fixed: dict[str, list[int]] = {}
        markup = sorted((token.content for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        self._markup = re.compile("|".join(f"(?<={re.escape(token[0])}){re.escape(token[1:])}" for token in markup if len(token) > 1)) if markup else None
        self.spaced = self._puts_a_space()

    def _puts_a_space(self) -> bool:
        """Whether the template puts a space before a message's content, so that its first word is spelled as within a sentence."""
        if not self.tokenizer.chat_template:
            return False
        example = str(self.tokenizer.apply_chat_template([{"role": "user", "content": _HOLE}], tokenize=False))
        return example.partition(_HOLE)[0].endswith(" ")

    def content(self, text: str) -> list[int]:
        """Token ids of a message's content, as the template would have them."""
        return self.text(f" {text}" if self.spaced and text else text)

    def arguments(self, arguments: Any) -> str:
        """A call's arguments as JSON; where contents begin with a space their texts do, too, so that words are spelled as elsewhere."""
        if self.spaced and isinstance(arguments, Mapping):
            arguments = {key: f" {value}" if isinstance(value, str) and value else value for key, value in arguments.items()}
        return json.dumps(arguments, ensure_ascii=False)

    def text(self, text: str) -> list[int]:
        """Token ids of plain text. A token of the markup in it (`<|im_end|>`, …) is spelled out, not obeyed."""
        ids: list[int] = []
        start = 0
        for match in self._markup.finditer(text) if self._markup else ():
            ids += self._markup_free(text[start : match.start()])
            start = match.start()
        return ids + self._markup_free(text[start:])

    def _markup_free(self, text: str) -> list[int]:
        return list(self._encode(text, add_special_tokens=False).ids) if text else []

    def markup(self, text: str) -> list[int]:
        """Token ids of text of our own, in which markup is obeyed."""
        if text not in self._fixed:
            self._fixed[text] = self._markup_free(text)
        return self._fixed[text]

    def turn(self, role: str, content: Sequence[int]) -> tuple[list[int], int]:
        """One turn around the ids of its content: the ids, and where the content begins among them."""
        head = self.markup(f"<|im_start|>{role}\n")
        return [*head, *content, *self.markup("<|im_end|>\n")], len(head)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
    ) -> list[int]:
        """Messages through the model's own chat template."""
        texts: list[str] = []

        def hole(text: str) -> str:
            texts.append(text)
            return _HOLE.format(len(texts) - 1)

        holed = [_holed(message, hole, self.arguments) for message in messages]
        rendered = self.tokenizer.apply_chat_template(
            holed,
            tools=[self._harmless(tool, hole) for tool in tools] if tools else None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
        )
        ids: list[int] = []
        pieces = _HOLES.split(str(rendered))
        for position in range(0, len(pieces), 2):
            piece = pieces[position]
            spaced = piece.endswith(" ") and position + 1 < len(pieces)  # the space is part of the first word
            ids += self.markup(piece[:-1] if spaced else piece)
            if position + 1 < len(pieces):
                ids += self.text(" " * spaced + texts[int(pieces[position + 1])])
        return ids

    def _harmless(self, value: Any, hole: Callable[[str], str]) -> Any:
        """A tool's JSON with markup in its strings spelled out; what looks like a hole is no hole either."""
        if isinstance(value, Mapping):
            return {self._harmless(key, hole): self._harmless(item, hole) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._harmless(item, hole) for item in value]
        odd = isinstance(value, str) and ("\ue000" in value or (self._markup and self._markup.search(value)))
        return hole(json.dumps(value, ensure_ascii=False)[1:-1]) if odd else value

    def after_thought(self, ids: Sequence[int]) -> Sequence[int]:
        """What follows the last `</think>`; all of it if there is none."""
        thought = self.markup("</think>")[-1]
        return ids[len(ids) - list(reversed(ids)).index(thought) :] if thought in ids else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def cut_at(text: str, stop: Sequence[str] | None) -> tuple[str, bool]:
    """The text up to the first stop text, and whether there was one."""
    ends = [position for word in stop or () if word and (position := text.find(word)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def held_back(text: str, stop: Sequence[str] | None) -> int:
    """How many characters at the end of a text may be the beginning of a stop text."""
    return max((size for word in stop or () for size in range(1, len(word)) if text.endswith(word[:size])), default=0)
