"""Training runs end to end on a toy scale, continues from its checkpoints, and repeats by seed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny_model import make_tiny, tiny_weights
from typer.testing import CliRunner

from lpm_core.backbone import Backbone
from lpm_core.checkpoint import MemoryWeights
from lpm_core.cli import app
from lpm_core.cold import cold_weights
from lpm_core.engine import embedded_folder
from lpm_core.exceptions import DatasetError, InvalidInputError, ModelNotFoundError
from lpm_core.training.backbone import BackboneRecipe, train_backbone
from lpm_core.training.dialogues import read_dialogues
from lpm_core.training.memory import MemoryRecipe, _attention_loss, _evidence, _user, train_memory
from lpm_core.training.people import Person, Question
from lpm_core.training.plan import training_plan
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


def test_frozen_layers_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="trained already"):
        train_backbone(replace(_BACKBONE, frozen_layers=1), _DIALOGUES, tmp_path / "new", _quiet())
    with pytest.raises(KeyboardInterrupt):
        train_backbone(_BACKBONE, _DIALOGUES, tmp_path, _StopAfter(3))
    before = _tensors(tmp_path / "backbone")
    (tmp_path / "backbone.optimizer.safetensors").unlink()

    after = _tensors(train_backbone(replace(_BACKBONE, frozen_layers=1), _DIALOGUES, tmp_path, _quiet()))

    lower = [name for name in before if "layers.0." in name or "embed_tokens" in name]
    assert lower
    assert all(torch.equal(before[name], after[name]) for name in lower)
    assert not torch.equal(before["model.layers.1.mlp.up_proj.weight"], after["model.layers.1.mlp.up_proj.weight"])


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


def test_evidence_is_the_segment_of_the_turn_that_names_the_answer() -> None:
    backbone = Backbone.load(embedded_folder() / "backbone")
    weights = MemoryWeights.new(backbone, heads=4, sentence_tokens=4)
    told = "It rained all day. My new flat is in Oslo. I like that a lot."
    person = Person((("user", "Oslo is where my sister is."), ("user", told)), (0, 0), ())

    user = _user(person, weights.config, backbone.chat)

    assert user.evidence(Question("Where is my flat?", "oslo", "home", 1)) == [False, False, True, False]
    assert user.evidence(Question("How was it?", "rained and poured", "weather", 1)) == [False, True, True, True]


def test_evidence_of_what_two_turns_tell_is_in_both() -> None:
    backbone = Backbone.load(embedded_folder() / "backbone")
    config = MemoryWeights.new(backbone, heads=4).config
    person = Person((("user", "My sister is Ana."), ("user", "Ana lives in Oslo.")), (0, 0), ())
    questions = [Question("Where does my sister live?", "Oslo", "home", 1, through=(0, "Ana")), Question("Who cooks?", "I don't know.", "cook", None)]

    evidence = _evidence(questions, [_user(person, config, backbone.chat)])

    assert evidence.tolist() == [[[False, False, True], [False, True, False]], [[True, False, False]] * 2]


def test_reads_are_to_find_each_piece_of_evidence_whichever_finds_it() -> None:
    evidence = torch.tensor([[[False, False, True], [False, True, False]]])  # [Q, 2, 1+N]

    def loss(*reads: list[float]) -> float:
        return _attention_loss(torch.tensor([reads]).log()[:, :, None], evidence).item()

    assert loss([0.01, 0.98, 0.01], [0.01, 0.01, 0.98]) == pytest.approx(loss([0.01, 0.01, 0.98], [0.01, 0.98, 0.01]))
    assert loss([0.01, 0.98, 0.01], [0.01, 0.01, 0.98]) < 0.1 < loss([0.01, 0.98, 0.01], [0.01, 0.98, 0.01])
    assert loss([0.01, 0.01, 0.98]) < 0.1 < loss([0.01, 0.98, 0.01])  # a single read is to find the answer


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


def _trained(folder: Path, recipe: MemoryRecipe, backbone: Backbone, **options: Any) -> dict[str, torch.Tensor]:
    start = tiny_weights(backbone)
    return dict(train_memory(recipe, backbone, _DIALOGUES, folder, _quiet(), start, **options).state_dict())


def test_recomputed_activations_give_the_same_weights(tmp_path: Path, tiny_backbone: Backbone) -> None:
    plain = _trained(tmp_path / "plain", _MEMORY, tiny_backbone)
    thrifty = _trained(tmp_path / "thrifty", replace(_MEMORY, checkpointing=True), tiny_backbone)

    for name, tensor in plain.items():
        torch.testing.assert_close(thrifty[name], tensor)
    assert not tiny_backbone.model.training


@pytest.mark.parametrize("tied", [True, False])
def test_two_processes_do_the_work_of_two_accumulated_batches(tmp_path: Path, tied: bool) -> None:
    folder = make_tiny(tmp_path / "model", tied=tied)
    command = ["-m", "lpm_core", "train", "memory", "--backbone", str(folder), "--steps", "2", "--retrieval-steps", "2", "--users-per-step", "2"]
    command += ["--heads", "4", "--device", "cpu"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    for arguments in ([*launch, *command, "--output", str(tmp_path / "two")], [*command, "--accumulate", "2", "--output", str(tmp_path / "one")]):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr

    two, one = (load_file(tmp_path / name / "memory" / "memory.safetensors") for name in ("two", "one"))
    start = MemoryWeights.new(Backbone.load(folder), **_MEMORY.shape).state_dict()
    moved = sum(float((one[name] - start[name]).square().sum()) for name in one)
    apart = sum(float((one[name] - two[name]).square().sum()) for name in one)
    assert apart < 1e-3 * moved  # rounding in bfloat16, which Adam makes larger where gradients are small


def test_conversations_of_ones_own_are_studied(tmp_path: Path) -> None:
    backbone = Backbone.load(make_tiny(tmp_path / "model", terse=True))
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "my dog is rex"}, {"role": "assistant", "content": "good dog"}]}) + "\n")
    recipe = replace(_MEMORY, retrieval_steps=0, conversation_share=1.0)
    before = {name: tensor.clone() for name, tensor in tiny_weights(backbone).state_dict().items()}

    after = _trained(tmp_path / "out", recipe, backbone, conversations=read_dialogues([file]))

    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("line", ['{"turns": [["user"]]}', '{"messages": [{"role": "user"}]}', "{}", "no", '{"turns": [["user", 3]]}'])
def test_a_line_that_is_no_dialogue_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"turns": [["user", "Hello."]]}\n' + line + "\n")

    with pytest.raises(DatasetError, match="line 2"):
        read_dialogues([file])


def test_a_plan_tells_what_training_takes_without_loading_anything(tiny_folder: Path) -> None:
    big = json.loads(CliRunner().invoke(app, ["train", "memory", "--backbone", "Qwen/Qwen3-1.7B", "--dry-run", "--json"]).stdout)
    small = training_plan(str(tiny_folder), MemoryRecipe(heads=4), gpu="a100")

    assert 1.7e9 < big["backbone_parameters"] < 1.75e9
    assert big["lora_numbers"] == 16 * 28 * (2 * (2048 + 2048) + 2 * (2048 + 1024) + 3 * (2048 + 6144))
    assert big["user_numbers"] == 32 * big["slot_numbers"]
    assert big["fits"]
    assert 0.01 < big["hours"] < 10
    assert small.backbone_parameters == Backbone.load(tiny_folder).model.num_parameters()
    assert "parameters" in CliRunner().invoke(app, ["train", "memory", "--backbone", str(tiny_folder), "--dry-run"]).stdout


def test_a_plan_for_what_is_not_there_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="h200"):
        training_plan("1.7b", MemoryRecipe(), gpu="abacus")
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        training_plan(str(tmp_path), MemoryRecipe())
