"""Arms that train something for each user: consolidated slots, and with PEFT a LoRA or virtual tokens of their own.

All learn by context distillation from one thing, the backbone's self-study of the user's history, for as many steps. Slots learn for 16 users
side by side, 6 questions of each in a step on average, those that they answer worst most often; an adapter learns for one user, from up to 24, so that the baselines see no fewer.
"""

from __future__ import annotations

import copy
import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lpm_core.backbone import Backbone
from lpm_core.consolidation import ConsolidationRecipe, Study, answer_logits, distillation_loss
from lpm_core.engine import LPM
from lpm_integrations.bench.arms import Arm, BareArm, LPMArm, Prompt
from lpm_integrations.bench.cases import Case, TestQuestion

__all__ = ["trained_arm"]

_TOGETHER = 16  # users whose slots learn side by side
_RANK = 16  # of a LoRA, as in the paper
_RATES = {"lpm+consolidated": ConsolidationRecipe().learning_rate, "lora": 3e-3, "prompt_tuning": 3e-2}

_studied: WeakKeyDictionary[LPM, dict[str, list[Study]]] = WeakKeyDictionary()
"""Self-study of a run's users: the arms of one engine learn from the same."""


def trained_arm(kind: str, engine: LPM, folder: Path, max_new_tokens: int, learning_rate: float | None, steps: int | None = None) -> Arm:
    """A trained arm by its kind; learning_rate None: that of `_RATES`; steps None: those of consolidation."""
    recipe = ConsolidationRecipe(learning_rate=learning_rate or _RATES[kind], steps=steps or ConsolidationRecipe().steps)
    made: dict[str, type[_Consolidated | _LoRA | _PromptTuning]] = {"lpm+consolidated": _Consolidated, "lora": _LoRA, "prompt_tuning": _PromptTuning}
    return made[kind](engine, folder, max_new_tokens, recipe)


class _Consolidated(LPMArm):
    """Soft tokens from slots that were consolidated; in a store of its own, so that other arms read those of one pass."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, recipe: ConsolidationRecipe) -> None:
        super().__init__(engine.on_store(f"sqlite:///{(folder / 'consolidated.db').as_posix()}"), folder, max_new_tokens)
        self.recipe = recipe

    def ready(self) -> None:
        users = self.engine.users()
        for start in range(0, len(users), _TOGETHER):
            self.engine.consolidate_many(users[start : start + _TOGETHER], self.recipe)

    def close(self) -> None:
        self.engine.close()


class _Adapted(BareArm):
    """The question alone, before a backbone with something trained for its user."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, recipe: ConsolidationRecipe) -> None:
        super().__init__(engine, folder, max_new_tokens)
        self.recipe = recipe
        self._log = LPMArm(engine, folder, max_new_tokens)
        self._learned: dict[str, dict[str, Tensor]] = {}  # tensors by user

    def write(self, case: Case) -> None:
        self._log.write(case)
        known = _studied.setdefault(self.engine, {})
        if case.user_id not in known:
            known[case.user_id] = self.engine.self_study(case.user_id, self.recipe)
        torch.manual_seed(self.recipe.seed)
        self._learned[case.user_id] = self._train(known[case.user_id], random.Random(f"{self.recipe.seed}/{case.user_id}"))

    @abstractmethod
    def _train(self, studies: Sequence[Study], rng: random.Random) -> dict[str, Tensor]:
        """What is trained for one user, by name."""

    def _fit(self, parameters: Sequence[Tensor], studies: Sequence[Study], rng: random.Random) -> Iterator[list[Study]]:
        """Batches to learn from; the gradient that the caller leaves behind is applied when it asks for the next."""
        optimizer = torch.optim.Adam(parameters, lr=self.recipe.learning_rate)
        for step in range(self.recipe.steps if studies else 0):
            optimizer.zero_grad(set_to_none=True)
            yield rng.sample(list(studies), min(self.recipe.batch, len(studies)))
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * (1 - step / self.recipe.steps)
            optimizer.step()


class _LoRA(_Adapted):
    """LoRA of rank 16 in all linear layers."""

    side_by_side = False  # one model, with the weights of whoever asks

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, recipe: ConsolidationRecipe) -> None:
        super().__init__(engine, folder, max_new_tokens, recipe)
        from peft import LoraConfig, inject_adapter_in_model

        plain = engine.backbone
        torch.manual_seed(recipe.seed)
        config = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model: Any = inject_adapter_in_model(config, _copy(plain.model))
        self._adapted = Backbone(model, plain.chat, name=plain.name, layer=plain.layer)
        self._names = [name for name, _ in model.named_parameters() if "lora_" in name]
        self._fresh = {name: model.get_parameter(name).detach().clone() for name in self._names}

    def _load(self, tensors: dict[str, Tensor]) -> list[nn.Parameter]:
        parameters = [self._adapted.model.get_parameter(name) for name in self._names]
        with torch.no_grad():
            for name, parameter in zip(self._names, parameters, strict=True):
                parameter.copy_(tensors[name])
        return parameters

    def _train(self, studies: Sequence[Study], rng: random.Random) -> dict[str, Tensor]:
        parameters = [parameter.requires_grad_(True) for parameter in self._load(self._fresh)]
        for batch in self._fit(parameters, studies, rng):
            distillation_loss(answer_logits(self._adapted, batch), batch).backward()  # type: ignore[no-untyped-call]
        return {name: parameter.requires_grad_(False).detach().clone() for name, parameter in zip(self._names, parameters, strict=True)}

    def backbone(self, case: Case) -> Backbone:
        self._load(self._learned[case.user_id])
        return self._adapted


class _PromptTuning(_Adapted):
    """As many virtual tokens as LPM has soft tokens, the same for every question."""

    def __init__(self, engine: LPM, folder: Path, max_new_tokens: int, recipe: ConsolidationRecipe) -> None:
        super().__init__(engine, folder, max_new_tokens, recipe)
        self._count = engine.weights.config.heads

    def _train(self, studies: Sequence[Study], rng: random.Random) -> dict[str, Tensor]:
        from peft import PromptEmbedding, PromptTuningConfig, PromptTuningInit

        backbone = self.engine.backbone
        start = PromptTuningInit.SAMPLE_VOCAB
        config = PromptTuningConfig(num_virtual_tokens=self._count, token_dim=backbone.size, num_transformer_submodules=1, prompt_tuning_init=start)
        virtual: nn.Module = PromptEmbedding(config, backbone.model.get_input_embeddings()).to(backbone.device)  # type: ignore[no-untyped-call]
        indices = torch.arange(self._count, device=backbone.device)
        for batch in self._fit(list(virtual.parameters()), studies, rng):
            soft = virtual(indices).expand(len(batch), -1, -1)
            distillation_loss(answer_logits(backbone, batch, soft), batch).backward()  # type: ignore[no-untyped-call]
        return {"virtual": virtual(indices).detach()}

    def prompt(self, case: Case, question: TestQuestion, room: int) -> Prompt:
        virtual = self._learned[case.user_id]["virtual"]
        asked = replace(super().prompt(case, question, room + self._count), soft=self._count)
        return replace(asked, embeds=torch.cat([virtual.to(asked.embeds.dtype), asked.embeds]))


def _copy(model: Any) -> Any:
    """A model with modules of its own and the same weights."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
