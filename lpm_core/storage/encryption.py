"""How values lie in the columns of a store: as they are, or sealed under keys that a master key wraps.

    master key        LPM_MASTER_KEY: 32 bytes in base64, never stored
    ├── index key     one a store, wrapped in `meta`: HMAC-SHA256 of the digests that users and sessions are found by
    └── data key      one a user, wrapped in `users`: seals their id, session ids, turns and slots; `delete_user` destroys it

Sealing is AES-256-GCM, bound to the store, the user, the table and the other columns that say what a row is. In the clear stay
times, roles, counts, random turn ids and the length of a text. A whole row put back as it once was is not known to be old.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from typing import Self

from lpm_core.exceptions import MissingDependencyError, StoreKeyError, StoreVersionError
from lpm_core.storage.values import DamagedRowError, raw, written

__all__ = ["Keyring", "MasterKey", "Owner", "SealingKeyring", "new_master_key"]

_FORMAT = 1
_KEY_BYTES = 32
_NONCE_BYTES = 12


def new_master_key() -> str:
    """A random master key, as LPM_MASTER_KEY takes it."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


class _Cipher:
    """AES-256-GCM under one key: nonce, ciphertext and tag are one value, which opens only with the place it was sealed for."""

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingDependencyError(f'{error.name} is not installed: pip install "latent-personal-memory[encryption]"') from error
        self._aes, self._refused = AESGCM(key), (InvalidTag, ValueError)

    def seal(self, data: bytes, *place: object) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aes.encrypt(nonce, data, written(place))

    def open(self, sealed: object, *place: object) -> bytes:
        try:
            value = raw(sealed)
            return self._aes.decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], written(place))
        except (TypeError, *self._refused):
            raise DamagedRowError("a value has no valid tag") from None


class MasterKey(_Cipher):
    """The key that wraps all others. Raises StoreKeyError for text that is no key; the text is in no message."""

    def __init__(self, text: str, name: str = "LPM_MASTER_KEY") -> None:
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except (ValueError, binascii.Error):
            key = b""
        if len(key) != _KEY_BYTES:
            raise StoreKeyError(f"{name} is not a key: expected {_KEY_BYTES} bytes in base64. `lpm new-key` makes one.")
        super().__init__(key)


class Owner:
    """Whose a row is: the digest that the user is found by, and how values of this user are stored, which is as they are."""

    def __init__(self, keyring: Keyring, digest: str) -> None:
        self.keyring, self.digest = keyring, digest

    def seal(self, data: bytes, *_place: object) -> bytes:
        """What is stored for `data`. `_place` is the table, and what tells the row from the others there."""
        return data

    def open(self, stored: object, *_place: object) -> bytes:
        """The data that `seal` was given for this place. Raises DamagedRowError or TypeError for anything else."""
        return raw(stored)

    def session_digest(self, name: bytes) -> str:
        """The digest that a session of this user is found by."""
        return self.keyring.digest(hashlib.sha256(name).hexdigest(), self.digest)

    def user_id(self, stored: object) -> str:
        """The user's id from its column. Raises ValueError or TypeError for a damaged one."""
        name = self.open(stored, "users")
        if self.keyring.digest(hashlib.sha256(name).hexdigest()) != self.digest:
            raise DamagedRowError("a user id does not match its digest")
        return name.decode()

    def session_id(self, stored: object, digest: str) -> str:
        """The id of a session of this user from its columns. Raises ValueError or TypeError for a damaged one."""
        name = self.open(stored, "sessions", digest)
        if self.session_digest(name) != digest:
            raise DamagedRowError("a session id does not match its digest")
        return name.decode()


class Keyring:
    """The keys of one store: of one that is not encrypted, which has none."""

    encrypts = False
    """Whether values are sealed."""

    def digest(self, plain: str, *_user: str) -> str:
        """What an id is found by, from its SHA-256; `_user` is the digest of the user whose session it names."""
        return plain

    def new_data_key(self, _digest: str) -> bytes | None:
        """A fresh data key for the user with this digest, wrapped; None where there are no keys."""
        return None

    def owner(self, digest: str, data_key: object) -> Owner:
        """The user with this digest and this wrapped data key. Raises DamagedRowError for a key that is not of this user and store."""
        if data_key is not None:
            raise DamagedRowError("a user has a data key, but the store is not encrypted")
        return Owner(self, digest)


class SealingKeyring(Keyring):
    """The keys of an encrypted store."""

    encrypts = True

    def __init__(self, master: MasterKey, store_id: str, index_key: bytes) -> None:
        self.store_id, self._master, self._index_key = store_id, master, index_key

    @classmethod
    def new(cls, master: MasterKey, store_id: str) -> Self:
        """The keys of a store that is to be encrypted."""
        return cls(master, store_id, secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def load(cls, master: MasterKey, store_id: str, row: str) -> Self:
        """The keys that `dump` wrote. Raises DamagedRowError for a row that this master key does not open, StoreVersionError for a newer one."""
        try:
            fields = json.loads(row)
            wrapped, found = base64.b64decode(fields["index_key"], validate=True), int(fields["format"])
        except (ValueError, KeyError, TypeError):
            raise DamagedRowError("its row of keys cannot be read") from None
        if found > _FORMAT:
            raise StoreVersionError(f"The store is encrypted in format {found}; this version knows {_FORMAT}. Upgrade latent-personal-memory.")
        return cls(master, store_id, master.open(wrapped, store_id, "index key"))

    def dump(self) -> str:
        """The row of `meta` that keeps the index key, wrapped."""
        wrapped = self._master.seal(self._index_key, self.store_id, "index key")
        return json.dumps({"format": _FORMAT, "index_key": base64.b64encode(wrapped).decode()})

    def under(self, master: MasterKey) -> SealingKeyring:
        """The same keys under another master key."""
        return SealingKeyring(master, self.store_id, self._index_key)

    def digest(self, plain: str, *user: str) -> str:
        """Without the index key nobody can try out ids."""
        return hmac.digest(self._index_key, written((self.store_id, *user, plain)), "sha256").hex()

    def new_data_key(self, digest: str) -> bytes:
        """A random one."""
        return self.wrap(secrets.token_bytes(_KEY_BYTES), digest)

    def wrap(self, data_key: bytes, digest: str) -> bytes:
        """A data key as the user's row keeps it."""
        return self._master.seal(data_key, self.store_id, "data key", digest)

    def unwrap(self, wrapped: object, digest: str) -> bytes:
        """The data key that `wrap` was given. Raises DamagedRowError for anything else."""
        return self._master.open(wrapped, self.store_id, "data key", digest)

    def owner(self, digest: str, data_key: object) -> Owner:
        """A user whose values are sealed. Without a data key (that of a forgotten user is destroyed) there are none to read or write."""
        return _SealingOwner(self, digest, None if data_key is None else _Cipher(self.unwrap(data_key, digest)))


class _SealingOwner(Owner):
    """A user of an encrypted store."""

    def __init__(self, keyring: SealingKeyring, digest: str, cipher: _Cipher | None) -> None:
        super().__init__(keyring, digest)
        self._store_id, self._cipher = keyring.store_id, cipher

    def seal(self, data: bytes, *place: object) -> bytes:
        return self._key.seal(data, self._store_id, self.digest, *place)

    def open(self, stored: object, *place: object) -> bytes:
        return self._key.open(stored, self._store_id, self.digest, *place)

    @property
    def _key(self) -> _Cipher:
        if self._cipher is None:
            raise DamagedRowError("a user has no data key")
        return self._cipher
