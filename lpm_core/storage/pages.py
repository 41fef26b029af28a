"""A page as the row that holds it, and back: safetensors, JSON and a checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import safetensors.torch
import torch

from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Page
from lpm_core.storage.encryption import Owner
from lpm_core.storage.tables import PAGES, SESSIONS
from lpm_core.storage.values import checksum, raw

__all__ = ["PAGE_COLUMNS", "check_pages", "decode_page", "encode_page", "serialise"]

PAGE_COLUMNS: Final = (*PAGES.c, SESSIONS.c.name.label("session"), SESSIONS.c.digest.label("session_digest"))
"""The columns that `decode_page` takes, by name."""


def check_pages(pages: Sequence[Page], session_id: str, from_index: int) -> None:
    """Raise InvalidInputError for pages that cannot be those of a session from `from_index` on."""
    indices = [page.index for page in pages]
    if len(set(indices)) != len(indices) or any(index < from_index for index in indices):
        raise InvalidInputError(f"Page indices {indices} are not distinct numbers from {from_index} on.")
    for page in pages:
        if page.session_id != session_id or not page.turn_ids:
            raise InvalidInputError(f"Page {page.index} is of another session, or names no turns.")
        if page.slots.dim() != 3 or page.slots.shape[1] != len(page.slot_turns):
            raise InvalidInputError(f"Page {page.index} has slots {list(page.slots.shape)} for {len(page.slot_turns)} slot turns; expected [G, S, d_mem].")


def serialise(page: Page) -> bytes:
    """A page's slots as safetensors."""
    return safetensors.torch.save({"slots": page.slots.detach().to("cpu", torch.float32).contiguous()})


def encode_page(page: Page, slots: bytes, position: int, owner: Owner, session_digest: str, prints: Mapping[str, str]) -> dict[str, Any]:
    """The row of a page, without its session's key. `slots` is the serialised page."""
    row = {"page_index": page.index, "first_position": position, "slot_turns": json.dumps(page.slot_turns), "turn_ids": json.dumps(page.turn_ids)}
    row |= {"tokens": page.tokens, "backbone": prints["backbone"], "weights": prints["weights"]}
    place = _place(session_digest, row, page.quarantine)
    sealed = owner.seal(slots, "pages", *place)
    return row | {"quarantine": page.quarantine, "slots": sealed, "checksum": checksum(sealed, owner.digest, *place)}


def decode_page(row: Mapping[str, Any], owner: Owner) -> Page:
    """A page from its PAGE_COLUMNS. Raises ValueError for a damaged row."""
    try:
        fields = {name: row[name] for name in ("page_index", "first_position", "slot_turns", "turn_ids", "tokens", "backbone", "weights")}
        place = _place(row["session_digest"], fields, row["quarantine"])
        if row["checksum"] != checksum(raw(row["slots"]), owner.digest, *place):
            raise ValueError("checksum")
        slots = safetensors.torch.load(owner.open(row["slots"], "pages", *place))["slots"]
        session = owner.open(row["session"], "sessions", row["session_digest"]).decode()
        slot_turns, turn_ids = tuple(json.loads(row["slot_turns"])), tuple(json.loads(row["turn_ids"]))
        return Page(session, row["page_index"], slots, slot_turns, turn_ids, row["tokens"], row["quarantine"])
    except (TypeError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise ValueError("damaged page") from error


def _place(session_digest: object, fields: Mapping[str, object], quarantine: object) -> tuple[object, ...]:
    """What a page's slots are bound to. A page that is served has no reason there: it is as it was before there was a quarantine."""
    return (session_digest, *fields.values(), *(() if quarantine is None else (quarantine,)))
