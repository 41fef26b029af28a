"""The embedded default from nothing: corpus, tokenizer, backbone, memory weights, model card."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from lpm_core.backbone import Backbone, quiet_loading
from lpm_core.checkpoint import MemoryWeights
from lpm_core.training.backbone import BackboneRecipe, context_recall, train_backbone
from lpm_core.training.card import model_card
from lpm_core.training.corpus import Corpus, corpus_counts
from lpm_core.training.dialogues import read_dialogues
from lpm_core.training.memory import MemoryRecipe, memory_recall, train_memory
from lpm_core.training.progress import Report

__all__ = ["environment", "pick_device", "train_embedded"]

_SHIPPED = torch.bfloat16  # half the bytes; the fingerprint is the same in every dtype
_MEASURED_PEOPLE, _MEASURED_FACTS, _MEASURED_SEED = 100, 8, 1000


def pick_device(name: str) -> str:
    """`auto` is a CUDA GPU if there is one, else the CPU."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def environment() -> dict[str, str | int]:
    """What a figure was measured with."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
    }


def train_embedded(output: Path, work: Path, dialogues: Sequence[Path], device: str, seed: int, start: Path | None = None, workers: int = 0) -> None:
    """Train into `work`, continuing from its checkpoints, and write the weights that ship into `output`.

    workers: processes that make batches ahead. start: a folder like `output`, whose backbone and memory weights are trained on, in place of new ones. Raises ModelNotFoundError, MemoryWeightsError.
    """
    recipe, earlier = BackboneRecipe(seed=seed), None
    if start is not None:
        earlier = MemoryWeights.load(start / "memory", Backbone.load(start / "backbone")).extended(recency=True, sentence_tokens=MemoryRecipe.sentence_tokens)
        if not (work / "backbone.state.json").exists():
            _go_on_from(start / "backbone", work, recipe)
    work.mkdir(parents=True, exist_ok=True)
    report = Report()
    device = pick_device(device)
    talk = read_dialogues(dialogues)
    report.say(f"{len(talk):,} human dialogues from {len(dialogues)} files; training on {device}")
    source = train_backbone(recipe, talk, work, report, device, workers)
    _export_backbone(source, output / "backbone")
    backbone = Backbone.load(output / "backbone", device=device)
    weights = train_memory(MemoryRecipe(seed=seed), backbone, talk, work, report, earlier, workers=workers)
    weights.save(output / "memory", backbone, training=asdict(MemoryRecipe(seed=seed)), dtype=_SHIPPED)
    report.say("measuring on held-out people")
    _describe(output, work, dialogues)
    report.say(f"the embedded default is in {output}")


def _go_on_from(source: Path, work: Path, recipe: BackboneRecipe) -> None:
    """A checkpoint with the weights of `source`, half-way through the recipe: contexts are long from there on, and the rate falls."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work.mkdir(parents=True, exist_ok=True)
    with quiet_loading():
        AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).save_pretrained(work / "backbone")
        AutoTokenizer.from_pretrained(source).save_pretrained(work / "backbone")
    (work / "backbone.state.json").write_text(json.dumps({"step": recipe.steps // 2, "recipe": asdict(recipe)}))


def _export_backbone(source: Path, target: Path) -> None:
    """The backbone as it ships: bfloat16 safetensors, tokenizer, config."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_loading():
        AutoModelForCausalLM.from_pretrained(source, dtype=_SHIPPED).save_pretrained(target)
        AutoTokenizer.from_pretrained(source).save_pretrained(target)


def _describe(output: Path, work: Path, dialogues: Sequence[Path]) -> None:
    """training.json and MODEL_CARD.md: settings, data and figures of the shipped weights."""
    backbone = Backbone.load(output / "backbone")
    weights = MemoryWeights.load(output / "memory", backbone)
    people = list(Corpus("test").people(_MEASURED_SEED, _MEASURED_PEOPLE, _MEASURED_FACTS, questions=_MEASURED_FACTS))
    states = {name: json.loads((work / f"{name}.state.json").read_text()) for name in ("backbone", "memory")}
    record = {
        "recipes": {name: state["recipe"] for name, state in states.items()},
        "dialogues": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dialogues},
        "parameters": {"backbone_parameters": backbone.model.num_parameters(), "memory_parameters": sum(p.numel() for p in weights.parameters())},
        "measured": {
            "people": _MEASURED_PEOPLE,
            "told": _MEASURED_FACTS,
            "full": context_recall(backbone.model, backbone.chat, people),
            "lpm": memory_recall(people, weights, backbone),
        },
        "environment": environment(),
    }
    (output / "training.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    notes = work / "history.md"  # written by hand where training did not go in one run
    history = notes.read_text("utf-8") if notes.exists() else ""
    (output / "MODEL_CARD.md").write_text(model_card(record, corpus_counts(), history), "utf-8")
