"""Dialogue as token ids: the backbone's chat format, in which content never acts as markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["ChatFormat", "Message"]

Message = Mapping[str, Any]
"""One chat message: role, content, and for an assistant perhaps tool_calls."""

_HOLE = "\ue000{}\ue001"  # private-use characters that stand for a message's content while the template is rendered
_HOLES = re.compile("\ue000(\\d+)\ue001")


class ChatFormat:
    """Encodes text and messages for one tokenizer of the Qwen family (ChatML)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._encode = tokenizer.backend_tokenizer.encode  # the tokenizer's own call is not safe in threads
        self._fixed: dict[str, list[int]] = {}
        markup = sorted((token.content for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        self._markup = re.compile("|".join(f"(?<={re.escape(token[0])}){re.escape(token[1:])}" for token in markup if len(token) > 1)) if markup else None

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
        holed = [{**message, "content": _HOLE.format(index)} if message.get("content") else dict(message) for index, message in enumerate(messages)]
        rendered = self._tokenizer.apply_chat_template(
            holed,
            tools=[dict(tool) for tool in tools] if tools else None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
        )
        ids: list[int] = []
        for position, piece in enumerate(_HOLES.split(str(rendered))):
            ids += self.text(str(messages[int(piece)]["content"])) if position % 2 else self.markup(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
