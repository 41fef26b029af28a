"""Result files: written whole or not at all, and read with an error that names them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lpm_core.exceptions import DatasetError

__all__ = ["read_json", "write_json"]


def write_json(value: Any, path: Path) -> None:
    """Write a document; a reader sees the old one or the whole new one. Raises DatasetError if the place cannot be written."""
    draft = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise DatasetError(f"cannot write {path} ({error.strerror or error}): name another place") from error


def read_json(path: Path) -> Any:
    """A document of `write_json`. Raises DatasetError if it is missing or not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error.strerror or error}): name a result file") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON ({error}): remove it and run the benchmark again") from error
