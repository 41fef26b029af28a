"""Memory weights on disk: safetensors and config.json, bound to the backbone they were trained for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lpm_core.backbone import Backbone, padded
from lpm_core.dates import VERSION as DATES
from lpm_core.exceptions import MemoryWeightsError
from lpm_core.projection import SoftPromptProjection
from lpm_core.settings import LPMConfig
from lpm_core.writer import SlotWriter

__all__ = ["FORMAT", "MemoryWeights"]

FORMAT = 1
_WEIGHTS, _CONFIG = "memory.safetensors", "config.json"


class MemoryWeights(nn.Module):
    """Writer and projection of one backbone: what is trained once and shared by all users."""

    def __init__(self, config: LPMConfig) -> None:
        super().__init__()
        self.config = config
        self.writer = SlotWriter(config)
        self.projection = SoftPromptProjection(config)
        self._fingerprint: str | None = None

    @classmethod
    def new(cls, backbone: Backbone, *, heads: int = 64, seed: int = 0, **options: Any) -> Self:
        """Untrained weights that start near the backbone's token embeddings. `options` are fields of LPMConfig."""
        torch.manual_seed(seed)
        weights = cls(LPMConfig(backbone_size=backbone.size, heads=heads, layer=backbone.layer, **options))
        weights.writer.start_from(backbone.embeddings)
        weights.projection.start_from(backbone.embeddings)
        return weights

    def extended(self, **options: Any) -> Self:
        """The same weights with other fields of LPMConfig, such as only add parameters; what is added changes nothing until it is trained."""
        wider = type(self)(self.config.model_copy(update=options))
        wider.load_state_dict(self.state_dict(), strict=False)
        return wider

    @property
    def fingerprint(self) -> str:
        """Identity of the weights, and of how texts are made ready for them: pages written with others are rebuilt."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"{self.config.model_dump_json()} dates {DATES}".encode())
            for name, tensor in sorted(self.state_dict().items()):
                digest.update(name.encode() + tensor.to("cpu", torch.float32).numpy().tobytes())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def identify(self, made_of: str) -> None:
        """Be known by what says how the weights were made, where their numbers are not the same to the last bit everywhere."""
        self._fingerprint = hashlib.sha256(f"{made_of} dates {DATES}".encode()).hexdigest()[:16]

    def queries(self, asked: Sequence[Sequence[int]], backbone: Backbone) -> Tensor:
        """e(x) of messages given as token ids, of which the last `query_tokens` count: [Q, query_size]. No gradient goes into the backbone."""
        rows = [row[-self.config.query_tokens :] for row in asked]
        ids = padded(rows).to(backbone.device)
        inside = torch.arange(ids.shape[1], device=ids.device) < torch.tensor([len(row) for row in rows], device=ids.device)[:, None]
        with torch.no_grad():
            states = backbone.states(ids).float()
        encoded: Tensor = self.projection.encode(states, inside)
        return encoded

    def save(self, folder: str | Path, backbone: Backbone, *, training: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32) -> None:
        """Write the weights and their config into `folder`; a reader sees the old weights or the new, never half."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in self.state_dict().items()}
        description = {"format": FORMAT, "backbone": backbone.fingerprint, "config": self.config.model_dump(), "training": training or {}}
        save_file(tensors, folder / f"{_WEIGHTS}.new")
        (folder / f"{_CONFIG}.new").write_text(json.dumps(description, indent=2) + "\n", "utf-8")
        for name in (_WEIGHTS, _CONFIG):
            os.replace(folder / f"{name}.new", folder / name)

    @staticmethod
    def describe(folder: str | Path) -> dict[str, Any]:
        """The config.json of saved weights. Raises MemoryWeightsError if it is missing, damaged or too new."""
        path = Path(folder) / _CONFIG
        try:
            description: dict[str, Any] = json.loads(path.read_text("utf-8"))
            number = description["format"]
        except FileNotFoundError as error:
            raise MemoryWeightsError(
                f"there are no memory weights in {str(folder)!r}; train them with `lpm train memory --backbone MODEL --output {folder}`"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MemoryWeightsError(f"{str(path)!r} is not the config of memory weights: {error}. Copy or train the weights again") from error
        if number != FORMAT:
            raise MemoryWeightsError(f"{str(path)!r} has format {number}; this version reads format {FORMAT}. Upgrade latent-personal-memory")
        return description

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone) -> Self:
        """Read weights for this backbone. Raises MemoryWeightsError if they are missing, damaged or of another one."""
        description = cls.describe(folder)
        if description["backbone"] != backbone.fingerprint:
            raise MemoryWeightsError(
                f"the memory weights in {str(folder)!r} were trained for backbone {description['backbone']}, not for {backbone.name!r} "
                f"({backbone.fingerprint}); load that backbone, or train weights for this one with `lpm train memory --backbone {backbone.name}`"
            )
        path = Path(folder) / _WEIGHTS
        try:
            weights = cls(LPMConfig(**description["config"]))
            weights.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
        except (OSError, SafetensorError, ValidationError, RuntimeError) as error:
            raise MemoryWeightsError(f"the memory weights in {str(path)!r} are damaged: {str(error).splitlines()[0]}. Copy or train them again") from error
        return weights.eval()
