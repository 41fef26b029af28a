"""The memory marker: how a message in a prompt names the user whose memory it stands for.

A memory puts it into `additional_kwargs`; the project's own models read it there and put soft tokens in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpm_core.exceptions import InvalidInputError

__all__ = ["MARKER", "marked_user", "memory_marker"]

MARKER = "lpm"
"""Key of `additional_kwargs`."""


def memory_marker(user_id: str, store_id: str) -> dict[str, Any]:
    """`additional_kwargs` of a message that stands for a user's memory in a store."""
    return {MARKER: {"user_id": user_id, "store_id": store_id}}


def marked_user(additional: Mapping[str, Any], bound: str | None, store_id: str, method: str) -> str | None:
    """The user that a message's `additional_kwargs` name; None without a marker.

    Raises InvalidInputError if the marker is of another store than `store_id`, or of another user than `bound`, whose
    memory is read already. `method` of a memory builds a model that fits it.
    """
    value = additional.get(MARKER)
    if not isinstance(value, dict) or not isinstance(value.get("user_id"), str):
        return None
    user_id: str = value["user_id"]
    if value.get("store_id") != store_id:
        raise InvalidInputError(f"the memory marker of user {user_id!r} names another store; build the model with `memory.{method}()`")
    if bound is not None and user_id != bound:
        raise InvalidInputError(f"this model reads the memory of user {bound!r}, the prompt holds that of {user_id!r}; use one user for both")
    return user_id
