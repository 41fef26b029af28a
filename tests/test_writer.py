"""The write path cuts dialogue as promised and writes the same slots alone and in bulk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.engine import embedded_folder
from lpm_core.settings import LPMConfig
from lpm_core.writer import cut_chunks, gather_segments

_CONFIG = LPMConfig(backbone_size=32, heads=4, segment_tokens=8, chunk_tokens=40, writer_size=16)
_PROSE = st.lists(st.sampled_from(["Yes.", "I see Dr. Fell.", "Who?", "My cat is old!", "and so on;", "\n"]), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=120) | _PROSE, min_size=1, max_size=6), sentence_tokens=st.integers(0, 6))
def test_every_token_of_every_turn_is_in_exactly_one_segment(tiny_backbone: Backbone, texts: list[str], sentence_tokens: int) -> None:
    config = _CONFIG.model_copy(update={"sentence_tokens": sentence_tokens})
    turns = [("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]

    chunks = cut_chunks(turns, tiny_backbone.chat, config)

    written: dict[int, list[int]] = {}
    for chunk in chunks:
        assert len(chunk.ids) <= _CONFIG.chunk_tokens
        for (first, last), turn in zip(chunk.spans, chunk.turns, strict=True):
            assert 0 < last - first <= _CONFIG.segment_tokens
            written.setdefault(turn, []).extend(chunk.ids[first:last])
    assert written == {index: tiny_backbone.chat.content(text) for index, (_, text) in enumerate(turns)}


def test_closed_chunks_never_change_when_turns_are_added(tiny_backbone: Backbone) -> None:
    turns = [("user", f"This is turn number {number} of a long talk.") for number in range(12)]
    before: tuple[object, ...] = ()
    for count in range(1, len(turns) + 1):
        chunks = tuple(cut_chunks(turns[:count], tiny_backbone.chat, _CONFIG))
        assert chunks[: max(0, len(before) - 1)] == before[: max(0, len(before) - 1)]
        before = chunks


def test_segments_end_between_sentences_where_they_can(tiny_backbone: Backbone) -> None:
    text = "I have a dog. My cat is old. We live in a small house by the sea."

    room = len(tiny_backbone.chat.content("I have a dog. My cat is old. We"))

    chunk = cut_chunks([("user", text)], tiny_backbone.chat, LPMConfig(backbone_size=32, segment_tokens=room, chunk_tokens=200))[0]

    pieces = [tiny_backbone.chat.decode(chunk.ids[first:last]) for first, last in chunk.spans]
    assert "".join(pieces).strip() == text
    assert len(pieces) > 1
    assert pieces[0].strip() == "I have a dog. My cat is old."


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("My closest friend is Ana. I wanted to be a street musician.", ["My closest friend is Ana.", "I wanted to be a street musician."]),
        ("Yes. My dentist is Dr. Anna Quill, of St. Ives. She is very kind.", ["Yes. My dentist is Dr. Anna Quill, of St. Ives.", "She is very kind."]),
        ("My bike cost 3.50 dollars and J. R. Smith sold it to me.", ["My bike cost 3.50 dollars and J. R. Smith sold it to me."]),
        ("What a nice day this is! Bye.", ["What a nice day this is! Bye."]),
        ("My list of things\nBread for the birds\nA red umbrella", ["My list of things", "Bread for the birds", "A red umbrella"]),
    ],
)
def test_a_sentence_that_is_long_enough_is_a_segment_of_its_own(text: str, sentences: list[str]) -> None:
    chat = Backbone.load(embedded_folder() / "backbone").chat

    chunk = cut_chunks([("user", text)], chat, LPMConfig(backbone_size=256, sentence_tokens=4))[0]

    assert [chat.decode(chunk.ids[first:last]).strip() for first, last in chunk.spans] == sentences


def test_slots_of_a_segment_do_not_depend_on_the_other_segments(tiny_backbone: Backbone) -> None:
    weights = MemoryWeights.new(tiny_backbone, heads=4, slot_size=8, address_size=4, writer_size=16, segment_tokens=8, chunk_tokens=64)
    chunk = cut_chunks(
        [("user", "I live in Oslo."), ("assistant", "Nice!"), ("user", "My dog is called Rex and he is old.")], tiny_backbone.chat, weights.config
    )[0]
    with torch.inference_mode():
        segments, lengths = gather_segments(tiny_backbone.states(torch.tensor([chunk.ids])), [chunk])

        together = weights.writer(segments, lengths)
        alone = torch.cat([weights.writer(segments[row : row + 1, : int(lengths[row])], lengths[row : row + 1]) for row in range(len(lengths))], dim=1)

    assert together.shape == (4, len(chunk.spans), 8)
    assert torch.allclose(together, alone, atol=1e-5)
