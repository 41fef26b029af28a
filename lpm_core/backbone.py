"""The frozen Hugging Face causal LM of the Qwen3 family, and what memory needs of it."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpm_core.chat import ChatFormat
from lpm_core.exceptions import InvalidInputError, ModelError, ModelNotFoundError
from lpm_core.tools import Constraint, ToolGrammar

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

__all__ = ["Backbone", "padded", "quiet_loading"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FAMILY = ("qwen3",)
_SAMPLE = 256  # numbers of each tensor that enter the fingerprint


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids of several texts, 0 behind the shorter ones: [B, T]."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


class Backbone:
    """A frozen causal LM with its tokenizer. Nothing here changes a weight.

    `size` is d, the width; `window` the number of positions it was trained for; `layer` the one whose output
    `states` gives beside the token embeddings.
    """

    def __init__(self, model: PreTrainedModel, chat: ChatFormat, *, name: str, layer: int | None = None) -> None:
        config = model.config
        _check_family(config.model_type, name)
        self.model, self.chat, self.name = model.requires_grad_(False), chat, name
        model.eval()  # type: ignore[no-untyped-call]
        self.size: int = config.hidden_size
        self.window: int = config.max_position_embeddings
        self.layer = layer if layer is not None else max(1, config.num_hidden_layers // 2 if config.num_hidden_layers <= 8 else config.num_hidden_layers // 4)
        if not 0 < self.layer <= config.num_hidden_layers:
            raise ModelError(f"layer {self.layer} of {name!r}: it has layers 1 to {config.num_hidden_layers}")
        self.kv_bytes_per_token: int = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = ends if ends is not None else config.eos_token_id
        self.ends = {*(ends if isinstance(ends, list) else [ends]), *chat.markup("<|im_end|>")} - {None}
        self._lower = _lower_part(model.model, self.layer)
        self._fingerprint: str | None = None

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        layer: int | None = None,
        local_files_only: bool = False,
    ) -> Backbone:
        """Load from a folder or by hub name. Raises ModelNotFoundError, ModelError, InvalidInputError."""
        if dtype not in _DTYPES:
            raise InvalidInputError(f"dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
        local = Path(name).is_dir()
        if not local and (isinstance(name, Path) or str(name).startswith((".", "/", "~")) or str(name).count("/") != 1):
            raise ModelNotFoundError(
                f"there is no model folder {str(name)!r}; give a folder with config.json and model.safetensors, or a hub name such as Qwen/Qwen3-1.7B"
            )
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        offline = local or local_files_only or os.environ.get("HF_HUB_OFFLINE") == "1"
        try:
            config = AutoConfig.from_pretrained(name, local_files_only=offline)
            _check_family(config.model_type, str(name))
            with quiet_loading():
                tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=offline)
                model = AutoModelForCausalLM.from_pretrained(name, dtype=_DTYPES[dtype], local_files_only=offline, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"cannot load the model {str(name)!r}: {_first_line(error)}. Give a folder with config.json, tokenizer.json and model.safetensors, or a hub name"
            ) from error
        try:
            model.to(device)  # type: ignore[arg-type]
        except (RuntimeError, AssertionError) as error:
            raise InvalidInputError(f"device {device!r} cannot be used here: {_first_line(error)}") from error
        return cls(model, ChatFormat(cast(Any, tokenizer)), name=str(name), layer=layer)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def embeddings(self) -> Tensor:
        """Token embeddings [V, d]."""
        return cast(Tensor, self.model.get_input_embeddings().weight)

    @cached_property
    def tool_grammar(self) -> ToolGrammar:
        """What answers that call tools may look like. Raises ModelError for a tokenizer without tool calls."""
        return ToolGrammar(self.chat.tokenizer, len(self.embeddings), sorted(self.ends), spaced=self.chat.spaced)

    @property
    def fingerprint(self) -> str:
        """Identity of the weights, whatever folder, dtype or device they are in: what pages and memory weights were made for."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"layer {self.layer}".encode())
            for name, tensor in sorted(self.model.state_dict().items()):
                flat = tensor.reshape(-1)
                sample = flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE]
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(sample.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Token embeddings [T, d] of ids."""
        return self.embeddings[torch.tensor(list(ids), dtype=torch.long, device=self.device)]

    def states(self, ids: Tensor) -> Tensor:
        """What writer and e(x) read: token embedding and lower-layer output of ids [B, T], each RMS-normalised: [B, T, 2d].

        Only the lower layers run. Ids may be padded on the right: attention is causal.
        """
        embedded = self.model.get_input_embeddings()(ids)
        lower = self._lower(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return torch.cat([F.rms_norm(part, (self.size,)) for part in (embedded, lower)], dim=-1)

    def hidden(self, embeds: Tensor) -> Tensor:
        """Last hidden states [B, T, d] of embedded prompts [B, T, d], padded on the right if at all."""
        hidden: Tensor = self.model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [N, V] of last hidden states [N, d]: in bfloat16 on a CPU, three dimensions would take 40 times as long."""
        head: nn.Module = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        return cast(Tensor, head(hidden))

    def answer_logits(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], soft: Tensor | None = None) -> Tensor:
        """Logits [sum of A, V] at the places of answers after their prompts (ids), one answer after the other. `soft` [B, P, d] stands before the prompts."""
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        embeds = self.embeddings[padded(rows).to(self.device)]
        before = 0
        if soft is not None:
            embeds, before = torch.cat([soft.to(embeds.dtype), embeds], dim=1), soft.shape[1]
        places = [(row, before + len(prompts[row]) - 1 + place) for row, answer in enumerate(answers) for place in range(len(answer))]
        row, column = torch.tensor(places, device=self.device).unbind(1)
        return self.logits(self.hidden(embeds)[row, column])

    def generate(
        self,
        embeds: Tensor,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        constraint: Constraint | None = None,
    ) -> Iterator[int]:
        """Token ids one by one after an embedded prompt [T, d], until an end token; greedy at temperature 0.

        constraint: allows only what it accepts.
        """
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        cache: DynamicCache | None = None
        step = embeds[None].to(self.model.dtype)
        for _ in range(max_new_tokens):
            with torch.inference_mode():
                output = self.model.model(inputs_embeds=step, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                logits = self.logits(output.last_hidden_state[0, -1:])[0].float()
                token = int(_choose(constraint.apply(logits) if constraint else logits, temperature, top_p, generator))
                step = self.model.get_input_embeddings()(torch.tensor([[token]], device=self.device))
            if token in self.ends:
                return
            yield token
            if constraint and not constraint.accept(token):
                return

    @torch.inference_mode()
    def answer_loss(self, embeds: Tensor, answer: Sequence[int]) -> float:
        """Mean negative log-likelihood (nats per token) of answer ids after an embedded prompt [T, d]."""
        full = torch.cat([embeds, self.embed(answer)])[None].to(self.model.dtype)
        logits = self.logits(self.hidden(full)[0, -len(answer) - 1 : -1])
        return F.cross_entropy(logits.float(), torch.tensor(list(answer), device=self.device)).item()


def _check_family(kind: str, name: str) -> None:
    if kind not in _FAMILY:
        raise ModelError(f"{name!r} is a {kind!r} model; latent memory needs a causal LM of the Qwen3 family, for example Qwen/Qwen3-1.7B")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bar of transformers for weights that load in a moment."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _lower_part(model: nn.Module, layers: int) -> nn.Module:
    """The first layers of a decoder as a decoder of its own; shares every weight and copies none."""
    part = copy.copy(model)
    part._modules = dict(model._modules)
    part.layers = nn.ModuleList(list(model.layers)[:layers])  # type: ignore[arg-type]
    part.norm = nn.Identity()
    return part


def _choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    if temperature <= 0:
        return logits.argmax()
    probabilities = (logits / temperature).softmax(-1)
    ordered, index = probabilities.sort(descending=True)
    ordered[ordered.cumsum(-1) - ordered > top_p] = 0.0
    return index[torch.multinomial(ordered, 1, generator=generator)[0]]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
