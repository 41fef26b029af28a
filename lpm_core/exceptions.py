"""Every error this project raises on purpose.

LPMError
├── InvalidInputError (also a ValueError)   a message, role, user id or argument that cannot be used
│   └── UnknownUserError                    a call that needs a user's history, and there is none
├── EngineClosedError                       a call on an engine or store after close()
├── ModelError
│   ├── ModelNotFoundError                  no model at that folder or hub name
│   └── MemoryWeightsError                  memory weights missing, damaged, or of another backbone
├── StoreError
│   ├── StoreUnavailableError               the database cannot be opened, locked or written
│   ├── StoreCorruptError                   the database or a page in it is damaged
│   ├── StoreKeyError                       the master key is missing, wrong or malformed
│   └── StoreVersionError                   the database was written by a newer version
├── DatasetError                            a benchmark file that is missing or malformed
└── MissingDependencyError (also an ImportError)   an extra that is not installed
"""

from __future__ import annotations

__all__ = [
    "DatasetError",
    "EngineClosedError",
    "InvalidInputError",
    "LPMError",
    "MemoryWeightsError",
    "MissingDependencyError",
    "ModelError",
    "ModelNotFoundError",
    "StoreCorruptError",
    "StoreError",
    "StoreKeyError",
    "StoreUnavailableError",
    "StoreVersionError",
    "UnknownUserError",
]


class LPMError(Exception):
    """Base of every error of this project. The message names the value at fault and the way out."""


class InvalidInputError(LPMError, ValueError):
    """A message, role, user id or argument that cannot be used."""


class UnknownUserError(InvalidInputError):
    """A call that needs a user's history, and there is none."""


class EngineClosedError(LPMError):
    """A call on an engine or store after `close()`."""


class ModelError(LPMError):
    """A model or its memory weights cannot be used."""


class ModelNotFoundError(ModelError):
    """No model at that folder or hub name."""


class MemoryWeightsError(ModelError):
    """Memory weights are missing, damaged, or were trained for another backbone."""


class StoreError(LPMError):
    """The store cannot do what was asked."""


class StoreUnavailableError(StoreError):
    """The database cannot be opened, locked or written."""


class StoreCorruptError(StoreError):
    """The database, or a page in it, is damaged."""


class StoreKeyError(StoreError):
    """The master key is missing, wrong or malformed, or there is one for a store that is not encrypted. No key is in the message."""


class StoreVersionError(StoreError):
    """The database was written by a newer version of this package."""


class DatasetError(LPMError):
    """A benchmark file is missing or malformed."""


class MissingDependencyError(LPMError, ImportError):
    """An optional part needs a package that is not installed."""
