"""One user's history as one portable file.

The file is a zip archive, uncompressed: `manifest.json` (format, user, fingerprints, what each page was written from),
`turns.jsonl` (one turn a line, in order) and `pages.safetensors` (one tensor [G, S, d_mem] a page). The archive's comment, the
last 64 bytes, is the SHA-256 of all bytes before it. No pickle, and nothing in it is a path.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from lpm_core.bounds import SlotBounds
from lpm_core.exceptions import InvalidInputError, StoreCorruptError, StoreUnavailableError, StoreVersionError
from lpm_core.memory import Page, Turn
from lpm_core.store import MemoryStore

__all__ = ["FORMAT", "RestoreReceipt", "UserExport", "adopt_pages", "read_export", "write_export"]

FORMAT = 1
_MANIFEST, _TURNS, _PAGES = "manifest.json", "turns.jsonl", "pages.safetensors"
_DIGEST = 64
_WRITTEN = (1980, 1, 1, 0, 0, 0)  # the same history gives the same bytes
_TURN = TypeAdapter(Turn)


@dataclass(frozen=True)
class UserExport:
    """All turns of a user, and the pages written from them with the weights that have these fingerprints."""

    user_id: str
    turns: tuple[Turn, ...]
    pages: tuple[Page, ...]
    backbone: str
    weights: str


@dataclass(frozen=True)
class RestoreReceipt:
    """What a call to restore did: how many turns were added, and how many were there already."""

    user_id: str
    turns: int
    present: int


def write_export(export: UserExport, path: str | Path) -> None:
    """Write a user's file, replacing one that is there; a reader, or a crash, finds the old file or the new, never half.

    Only the owner of the file may read it. Raises StoreUnavailableError if it cannot be written.
    """
    path = Path(path)
    manifest = {"format": FORMAT, "user_id": export.user_id, "backbone": export.backbone, "weights": export.weights, "turns": len(export.turns)}
    pages = [{name: value for name, value in vars(page).items() if name not in ("slots", "quarantine")} for page in export.pages]
    members = {
        _MANIFEST: json.dumps(manifest | {"pages": pages}, ensure_ascii=False, indent=1).encode(),
        _TURNS: b"".join(_TURN.dump_json(turn) + b"\n" for turn in export.turns),
        _PAGES: safetensors.torch.save({str(number): page.slots.contiguous() for number, page in enumerate(export.pages)}),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _WRITTEN), data)
        archive.comment = bytes(_DIGEST)
    body = buffer.getvalue()[:-_DIGEST]
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body + hashlib.sha256(body).hexdigest().encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except ValueError:
        raise InvalidInputError(f"{str(path)!r} cannot be a path; pass the file to write") from None
    except OSError as error:
        raise StoreUnavailableError(f"the export {str(path)!r} cannot be written: {error.strerror}; choose another file") from None


def read_export(path: str | Path) -> UserExport:
    """Read a user's file.

    Raises InvalidInputError if there is none, StoreCorruptError for one that is damaged or something else, StoreVersionError for
    one of a newer version.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"the export {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or 'it is no path'}; pass a file that `export` wrote"
        ) from None
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    damaged = StoreCorruptError(f"{str(path)!r} is damaged, or is no export of this package; nothing was restored. Copy it again, or export again")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise damaged
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise damaged
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest["format"] > FORMAT:
                raise StoreVersionError(
                    f"{str(path)!r} has format {manifest['format']}; this version reads formats up to {FORMAT}. Upgrade latent-personal-memory; nothing was restored"
                )
            turns = tuple(_TURN.validate_json(line) for line in archive.read(_TURNS).splitlines())
            slots = safetensors.torch.load(archive.read(_PAGES))
        pages = tuple(
            Page(str(page["session_id"]), int(page["index"]), slots[str(number)], tuple(page["slot_turns"]), tuple(page["turn_ids"]), int(page["tokens"]))
            for number, page in enumerate(manifest["pages"])
        )
        user = str(manifest["user_id"])
        if len(turns) != manifest["turns"] or any(turn.user_id != user for turn in turns):
            raise damaged
        return UserExport(user, turns, pages, str(manifest["backbone"]), str(manifest["weights"]))
    except (zipfile.BadZipFile, ValidationError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None


def adopt_pages(store: MemoryStore, export: UserExport, bounds: SlotBounds) -> None:
    """Put the pages of an export into the store, of every session whose log is that of the export, and whose slots are within bounds.

    Refined pages may know of any turn of the export: if one was forgotten meanwhile, none is taken.
    """
    version = store.version(export.user_id)
    log: dict[str, list[str]] = {}
    for turn in store.turns(export.user_id):
        log.setdefault(turn.session_id, []).append(turn.id)
    told: dict[str, list[str]] = {}
    for turn in export.turns:
        told.setdefault(turn.session_id, []).append(turn.id)
    if not all(set(turns) <= set(log.get(session, ())) for session, turns in told.items()):
        return
    fit = {session for session, turns in told.items() if turns == log[session]} - {page.session_id for page in export.pages if bounds.fault(page)}
    pages = [page for page in export.pages if page.session_id in fit]
    store.put_pages(export.user_id, pages, backbone=export.backbone, weights=export.weights, version=version)
