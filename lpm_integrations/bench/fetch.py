"""`lpm bench fetch`: data sets from where their authors publish them, checked against a pinned SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lpm_core.exceptions import DatasetError, InvalidInputError

__all__ = ["SOURCES", "Published", "Source", "fetch"]

_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Published:
    """One file: its name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A data set: where its files are, and its licence."""

    base: str
    licence: str
    files: tuple[Published, ...]


SOURCES: Final[Mapping[str, Source]] = {
    "locomo": Source(
        "https://raw.githubusercontent.com/snap-research/locomo/main/data/",
        "LoCoMo (Maharana et al., ACL 2024), CC BY-NC 4.0: not for commercial use, and not to be passed on with this project",
        (Published("locomo10.json", 2_805_274, "79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4"),),
    ),
    "personamem": Source(
        "https://huggingface.co/datasets/bowen-upenn/PersonaMem/resolve/main/",
        "PersonaMem v1 (Jiang et al., 2025), MIT",
        (
            Published("questions_32k.csv", 1_305_366, "cccd34cf53e0bc4d9536c04cff5ca045156d9a4e227e83327112482840bbc93c"),
            Published("shared_contexts_32k.jsonl", 5_613_210, "217247ebfec9e8442fc53570c795ab69f21aad08745f7de78d9beab51b122d4a"),
        ),
    ),
}
"""The data sets that can be fetched, by name."""


def fetch(file: Published, base: str, folder: Path, on_bytes: Callable[[int], None] = lambda _: None) -> bool:
    """Bring one file into `folder`, going on where an interrupted fetch stopped. False: it was there already.

    `on_bytes` is told the bytes here so far. What arrives waits beside its place until it is whole and its SHA-256 is right.
    Raises DatasetError if the place does not answer, or what it gives is another file; InvalidInputError for a base that is no web address.
    """
    if not base.startswith(("http://", "https://")):
        raise InvalidInputError(f"{base!r} is no web address; give one that begins with https://")
    target, part = folder / file.name, folder / f"{file.name}.part"
    try:
        if target.exists():
            if _sha256(target) == file.sha256:
                return False
            raise DatasetError(f"{target} is another file (its SHA-256 is not {file.sha256}); move it away and fetch again")
        folder.mkdir(parents=True, exist_ok=True)
        _download(f"{base.rstrip('/')}/{quote(file.name)}", part, on_bytes)
        found = _sha256(part)
        if found != file.sha256:
            part.unlink()
            raise DatasetError(
                f"{file.name} from {base} has the SHA-256 {found}, not {file.sha256}; it was changed or damaged, and was not kept. Try again, or --base"
            )
        os.replace(part, target)
    except OSError as error:  # of the network or of the disk; what arrived stays for the next try
        raise DatasetError(f"cannot fetch {file.name} from {base} to {folder} ({error}); run the command again to go on") from error
    return True


def _download(url: str, part: Path, on_bytes: Callable[[int], None]) -> None:
    import httpx

    done = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    try:
        with httpx.stream("GET", url, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # the part is whole, or of another file, as its SHA-256 will show
            answer.raise_for_status()
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            done = done if resumed else 0
            with part.open("ab" if resumed else "wb") as out:
                for block in answer.iter_bytes():
                    out.write(block)
                    done += len(block)
                    on_bytes(done)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
