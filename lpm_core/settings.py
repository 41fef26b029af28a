"""Configuration: `LPMConfig` is the shape of the memory network, `LPMSettings` are the LPM_* environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["LPMConfig", "LPMSettings", "Placement"]

Placement = Literal["prefix", "message"]
"""Where soft tokens stand: before everything (the paper), or just before the last user message."""


class LPMConfig(BaseModel):
    """Shape of the memory network. Saved beside its weights; validated once.

    `heads` is H, the number of soft tokens; a page has G = `banks` slots, H / `reads`, for each segment of at most
    `segment_tokens` tokens; `slot_size` is d_mem.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone_size: int = Field(gt=0, description="d, the width of the backbone")
    heads: int = Field(64, gt=0, description="H, soft tokens per question")
    reads: int = Field(1, gt=0, description="segments of which one recall says each by H / reads soft tokens; more than one: heads agree on each")
    slot_size: int = Field(160, gt=0, description="d_mem, numbers per slot")
    address_size: int = Field(64, ge=0, description="of these, how many start out as the address of the segment rather than its words")
    key_size: int = Field(64, gt=0, description="d_k of the read attention")
    agree: bool = Field(False, description="whether the heads agree on one attention, that of their mean score, or each has its own (the paper)")
    recency: bool = Field(False, description="whether attention may lean to newer or older slots, as the question has it: for what changes")
    query_size: int = Field(256, gt=0, description="width of e(x)")
    encoder_layers: int = Field(0, ge=0, description="layers in which the words of a message, or of a segment, look at each other before they are pooled")
    writer_size: int = Field(192, gt=0, description="width inside the writer")
    writer_layers: int = Field(2, gt=0)
    writer_heads: int = Field(4, gt=0, description="heads inside the writer, and in the layers before pooling")
    layer: int = Field(2, ge=0, description="backbone layer whose hidden states are read, besides the token embeddings")
    segment_tokens: int = Field(32, gt=0, description="tokens of dialogue behind one slot, at most")
    sentence_tokens: int = Field(0, ge=0, description="a sentence of at least so many tokens is a segment of its own; 0: as many sentences as fit")
    chunk_tokens: int = Field(512, gt=0, description="tokens of dialogue behind one page, at most")
    num_slots: int = Field(4096, gt=0, description="slots of a user that are read at most; of those beyond, the oldest are merged")
    query_tokens: int = Field(256, gt=0, description="tokens of the message that e(x) looks at, counted from its end")
    placement: Placement = "prefix"

    @property
    def banks(self) -> int:
        """G, the slots of one segment. Heads of different reads share them, as query heads share keys and values (Ainslie et al. 2023)."""
        return self.heads // self.reads

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.writer_size % self.writer_heads:
            raise ValueError(f"writer_size {self.writer_size} is not a multiple of writer_heads {self.writer_heads}")
        if self.encoder_layers and self.query_size % self.writer_heads:
            raise ValueError(f"query_size {self.query_size} is not a multiple of writer_heads {self.writer_heads}, which its layers have, too")
        if self.heads % self.reads:
            raise ValueError(f"heads {self.heads} is not a multiple of reads {self.reads}")
        if self.reads > 1 and not self.agree:
            raise ValueError(f"reads {self.reads} needs agree=True: the heads of a read say the words of one segment")
        if self.address_size >= self.slot_size:
            raise ValueError(f"address_size {self.address_size} leaves nothing of slot_size {self.slot_size} for words")
        if self.segment_tokens > self.chunk_tokens:
            raise ValueError(f"segment_tokens {self.segment_tokens} is larger than chunk_tokens {self.chunk_tokens}")
        return self


class LPMSettings(BaseSettings):
    """Settings from the environment: LPM_HOME, LPM_MODEL, LPM_MEMORY, LPM_STORE, LPM_MASTER_KEY, LPM_DEVICE, LPM_DTYPE, LPM_NUM_SLOTS."""

    model_config = SettingsConfigDict(env_prefix="LPM_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: user_data_path("latent-personal-memory"))
    model: str | None = None
    memory: str | None = None
    store: str | None = None
    master_key: SecretStr | None = None
    device: str = "cpu"
    dtype: str = "float32"
    num_slots: int | None = Field(default=None, gt=0)

    @property
    def store_url(self) -> str:
        """The store's SQLAlchemy URL: LPM_STORE, or SQLite in LPM_HOME."""
        return self.store or f"sqlite:///{(self.home / 'memory.db').as_posix()}"
