"""Memory weights on disk: what fits is loaded, what does not is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_model import make_tiny

from lpm_core import LPM, MemoryWeightsError
from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.engine import embedded_folder
from lpm_core.training.backbone import BackboneRecipe
from lpm_core.training.embedded import _go_on_from


def test_round_trip(tiny_backbone: Backbone, tmp_path: Path) -> None:
    weights = MemoryWeights.new(tiny_backbone, heads=4, writer_size=16, seed=3)
    weights.save(tmp_path, tiny_backbone, training={"steps": 0})

    loaded = MemoryWeights.load(tmp_path, tiny_backbone)

    assert loaded.config == weights.config
    assert loaded.fingerprint == weights.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(weights.state_dict().values(), loaded.state_dict().values(), strict=True))


def test_queries_of_unequal_length_are_those_of_each_alone(tiny_backbone: Backbone) -> None:
    weights = MemoryWeights.new(tiny_backbone, heads=4, writer_size=16)
    asked = [tiny_backbone.chat.content(text) for text in ("Where?", "Where do I live now that I have moved?", "Who am I " * weights.config.query_tokens)]

    together = weights.queries(asked, tiny_backbone)

    for row, ids in zip(together, asked, strict=True):
        assert torch.allclose(row, weights.queries([ids], tiny_backbone)[0], atol=1e-5)
    assert torch.equal(weights.queries([asked[2][-weights.config.query_tokens :]], tiny_backbone), weights.queries(asked[2:], tiny_backbone))


def test_weights_of_another_backbone_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "other", seed=5)

    with pytest.raises(MemoryWeightsError, match="trained for backbone"):
        LPM.from_pretrained(other, memory=tiny_folder / "memory", store="sqlite://")


@pytest.mark.parametrize("damage", ["truncated", "missing", "config", "format", "shape"])
def test_damaged_weights_are_refused(tiny_backbone: Backbone, tmp_path: Path, damage: str) -> None:
    MemoryWeights.new(tiny_backbone, heads=4, writer_size=16).save(tmp_path, tiny_backbone)
    weights, config = tmp_path / "memory.safetensors", tmp_path / "config.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "missing":
        weights.unlink()
    elif damage == "config":
        config.write_text("{")
    else:
        description = json.loads(config.read_text())
        description["format"] = 99 if damage == "format" else description["format"]
        description["config"]["heads"] = 5
        config.write_text(json.dumps(description))

    with pytest.raises(MemoryWeightsError, match=str(tmp_path)):
        MemoryWeights.load(tmp_path, tiny_backbone)


def test_weights_extended_by_recency_read_as_before(tiny_backbone: Backbone) -> None:
    weights = MemoryWeights.new(tiny_backbone, heads=4, slot_size=8, address_size=4, writer_size=16, recency=False)
    query, slots = torch.randn(2, weights.config.query_size), torch.randn(2, weights.config.heads, 5, weights.config.slot_size)

    extended = weights.extended(recency=True)

    assert extended.config.recency
    assert all(torch.equal(*pair) for pair in zip(weights.projection(query, slots), extended.projection(query, slots), strict=True))


def test_training_goes_on_from_weights_of_before(tmp_path: Path) -> None:
    recipe = BackboneRecipe(steps=10)

    _go_on_from(embedded_folder() / "backbone", tmp_path, recipe)

    assert json.loads((tmp_path / "backbone.state.json").read_text())["step"] == 5
    assert Backbone.load(tmp_path / "backbone").fingerprint == Backbone.load(embedded_folder() / "backbone").fingerprint
