"""Cold start: a model without memory weights remembers at once, by retrieval through the read equations."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny_model import make_tiny
from torch.nn import functional as F

from lpm_core import LPM, InvalidInputError
from lpm_core.backbone import Backbone
from lpm_core.cold import COLD, cold_recipe, cold_start, cold_weights
from lpm_core.store import MemoryStore
from lpm_core.training.memory import MemoryRecipe

_TOLD = ("My dog is called Rex.", "I live in Lisbon.", "I work as a nurse at night.", "We play chess on Sundays.")


def test_a_model_without_memory_weights_starts_cold_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_tiny(tmp_path / "bare")

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with LPM.from_pretrained(folder, store="sqlite://") as lpm:
                lpm.remember("ann", "My dog is called Rex.")
                assert lpm.ask("ann", "What is my dog called?").evidence[0].turn.content == "My dog is called Rex."

    said = [record.getMessage() for record in caplog.records if record.name == "lpm_core.cold"]
    assert len(said) == 1
    assert f"lpm train memory --backbone {folder}" in said[0]


@pytest.mark.parametrize("tied", [True, False])
def test_soft_tokens_of_a_cold_start_are_the_words_of_the_segment_that_fits(tied: bool, tmp_path: Path) -> None:
    backbone = Backbone.load(make_tiny(tmp_path / "bare", tied=tied))
    with LPM(backbone, cold_weights(backbone, heads=32), MemoryStore("sqlite://")) as lpm:
        for text in _TOLD:
            lpm.remember("ann", text)

        found = lpm.explain("ann", "What is my dog called?")

        assert found.evidence[0].turn.content == _TOLD[0]
        ids = backbone.chat.content(_TOLD[0])
        soft = lpm.prompt("ann", [{"role": "user", "content": "What is my dog called?"}])[0][:32]
        words = backbone.embeddings[torch.tensor([ids[place % len(ids)] for place in range(16)])]
        words = words - words.mean(-1, keepdim=True)
        assert F.cosine_similarity(soft.view(2, 16, -1), words, dim=-1).min(1).values.max() > 0.9  # of the two reads, one says it


def test_the_embedded_model_recalls_from_a_cold_start(tmp_path: Path) -> None:
    with LPM.from_pretrained(memory=COLD, store=f"sqlite:///{tmp_path / 'cold.db'}") as lpm:
        for text in _TOLD:
            lpm.remember("ann", text)

        assert lpm.ask("ann", "What is my dog called?").text == "Rex"
        assert not lpm.ask("bob", "What is my dog called?").evidence


def test_weights_of_a_cold_start_are_the_same_to_the_store_in_every_dtype_and_after_a_restart(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "bare")
    plain, half = cold_start(Backbone.load(folder)), cold_start(Backbone.load(folder, dtype="bfloat16"))

    assert plain.fingerprint == half.fingerprint
    assert plain.fingerprint != cold_start(Backbone.load(make_tiny(tmp_path / "other", seed=1))).fingerprint


def test_an_odd_number_of_heads_is_refused_and_training_goes_on_in_smaller_steps(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="5 heads"):
        cold_weights(Backbone.load(make_tiny(tmp_path / "bare")), heads=5)
    assert cold_recipe(MemoryRecipe()).learning_rate < MemoryRecipe().learning_rate
    assert cold_recipe(MemoryRecipe(steps=7)).steps == 7
