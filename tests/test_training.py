"""Training runs end to end on a toy scale, continues from its checkpoints, and repeats by seed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_model import make_tiny

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.cold import cold_weights
from lpm_core.training.backbone import BackboneRecipe, train_backbone
from lpm_core.training.corpus import read_dialogues
from lpm_core.training.memory import MemoryRecipe, train_memory
from lpm_core.training.progress import Report

_BACKBONE = BackboneRecipe(
    vocab_size=400, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, intermediate_size=64, steps=4, batch_tokens=300, max_facts=2,
    tokenizer_people=20, checkpoint_every=2, probe_people=2,
)  # fmt: skip
_MEMORY = MemoryRecipe(
    heads=4, retrieval_steps=2, retrieval_users=2, retrieval_questions=2, steps=3, users=2, questions=2, max_facts=2, checkpoint_every=2, probe_people=2
)
_DIALOGUES = [[("user", "hello there friend"), ("assistant", "hi, how are you")]] * 3


def _quiet() -> Report:
    return Report(Console(file=io.StringIO()))


class _StopAfter(Report):
    """A person who presses Ctrl-C after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(Console(file=io.StringIO()))
        self._left = steps

    def value(self, **values: float) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(Backbone.load(folder).model.state_dict())


def test_an_interrupted_backbone_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = train_backbone(_BACKBONE, _DIALOGUES, tmp_path / "whole", _quiet())
    with pytest.raises(KeyboardInterrupt):
        train_backbone(_BACKBONE, _DIALOGUES, tmp_path / "parts", _StopAfter(3))
    assert json.loads((tmp_path / "parts" / "backbone.state.json").read_text())["step"] == 2

    parts = train_backbone(_BACKBONE, _DIALOGUES, tmp_path / "parts", _quiet())

    left, right = _tensors(whole), _tensors(parts)
    assert all(torch.allclose(left[name], right[name], atol=1e-5) for name in left)


def test_an_interrupted_memory_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    backbone = Backbone.load(make_tiny(tmp_path / "tiny"))
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = train_memory(_MEMORY, backbone, _DIALOGUES, tmp_path / "whole", _quiet())
    with pytest.raises(KeyboardInterrupt):
        train_memory(_MEMORY, backbone, _DIALOGUES, tmp_path / "parts", _StopAfter(3))

    parts = train_memory(_MEMORY, backbone, _DIALOGUES, tmp_path / "parts", _quiet())

    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))
    assert MemoryWeights.load(tmp_path / "parts" / "memory", backbone).config == whole.config


def test_memory_weights_of_a_cold_start_learn(tmp_path: Path) -> None:
    backbone = Backbone.load(make_tiny(tmp_path / "tiny"))
    cold = cold_weights(backbone, heads=8)
    before = {name: tensor.clone() for name, tensor in cold.state_dict().items()}

    trained = train_memory(_MEMORY, backbone, _DIALOGUES, tmp_path, _quiet(), cold)

    assert trained.config == cold.config
    assert all(bool(tensor.isfinite().all()) for tensor in trained.state_dict().values())
    assert not torch.equal(trained.projection.w_v, before["projection.w_v"])


def test_dialogues_are_read_from_plain_and_compressed_lines(tmp_path: Path) -> None:
    import gzip

    line = json.dumps({"id": "x", "turns": [["user", "hi"], ["assistant", "hello"]]}) + "\n"
    (tmp_path / "a.jsonl").write_text(line)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(line)

    assert read_dialogues([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"]) == [[("user", "hi"), ("assistant", "hello")]] * 2
