"""Encryption at rest: one random data key, wrapped by a passphrase (Argon2id) or by a key file.

    vault = Vault.create(home, runtime, passphrase=..., key_file=False)   idempotent; `penstock init`
    vault = Vault.open(home, runtime, passphrase=...)                     every later start
    text = vault.seal(b"...", "merchant:17:secret")                       AES-256-GCM; opens only under the same context

`vault.json` says how the data key is wrapped and holds nothing that is secret in clear; `vault.key` is the key file (0600). Both
are written once and never changed. Whoever has the database and not one of these two has nothing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import argon2.low_level
from argon2.exceptions import Argon2Error
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.core.party import Secret
from penstock.runtime import Runtime

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MEMORY_KIB: Final = 64 * 1024
"""Argon2id with 64 MiB, 3 passes, 4 lanes: the second choice of RFC 9106, section 4."""
PASSES: Final = 3
LANES: Final = 4

_FORM: Final = "v1"
_FILE_BYTES_MAX: Final = 64 * 1024
_KDF_BOUNDS: Final = {"memory_kib": (8 * LANES, 1024 * 1024), "passes": (1, 20), "lanes": (1, 16)}


class VaultError(Exception):
    """The vault cannot be made or opened, or a sealed text is not ours; the text says why and names no secret."""


class Vault:
    """Seals and opens small texts under the data key. Prints nothing of it."""

    def __init__(self, key: bytes, runtime: Runtime) -> None:
        self._cipher = AESGCM(key)
        self._runtime = runtime

    @classmethod
    def create(cls, home: Path, runtime: Runtime, *, passphrase: Secret | None, key_file: bool) -> Self:
        """Make the vault of a home, or open the one that is there. Raises VaultError."""
        if not (home / "vault.json").exists():
            if key_file == (passphrase is not None):
                raise VaultError("a vault needs either a passphrase (PENSTOCK_PASSPHRASE) or a key file (init --key-file), one of the two")
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps(_wrapped_key(home, runtime, passphrase), indent=2) + "\n"
            write_once(home / "vault.json", text.encode(), runtime)
        return cls.open(home, runtime, passphrase=passphrase)

    @classmethod
    def open(cls, home: Path, runtime: Runtime, *, passphrase: Secret | None) -> Self:
        """Unwrap the data key. Raises VaultError."""
        path = home / "vault.json"
        if not path.exists():
            raise VaultError(f"there is no vault in {home}; `penstock init` makes one")
        try:
            fields = json.loads(read_private(path))
            wrap, nonce, wrapped = fields["wrap"], bytes.fromhex(fields["nonce"]), bytes.fromhex(fields["wrapped_key"])
            binding = _binding(fields)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise VaultError("vault.json is damaged; put it back from a backup") from error
        if wrap == "passphrase":
            if passphrase is None:
                raise VaultError("the vault is locked by a passphrase; give it in PENSTOCK_PASSPHRASE")
            outer = _from_passphrase(passphrase, fields.get("kdf"))
            wrong = "the passphrase does not open the vault: PENSTOCK_PASSPHRASE is another one than `penstock init` was given"
        elif wrap == "key file":
            outer = _from_key_file(home / "vault.key")
            wrong = "vault.key does not open the vault; it belongs to another one, or vault.json was altered"
        else:
            raise VaultError("vault.json names a way of locking that this version does not know")
        try:
            return cls(AESGCM(outer).decrypt(nonce, wrapped, binding), runtime)
        except (InvalidTag, ValueError) as error:
            raise VaultError(wrong) from error

    def seal(self, plaintext: bytes, context: str) -> str:
        """Encrypt. `context` names the row and column it belongs to; it is not stored and must be given again to open."""
        nonce = self._runtime.random_bytes(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, plaintext, context.encode())
        return f"{_FORM}:{base64.b64encode(sealed).decode()}"

    def open_sealed(self, text: str, context: str) -> bytes:
        """Decrypt. Raises VaultError when the text is damaged, of another vault, or sealed for another context."""
        form, _, body = text.partition(":")
        try:
            data = base64.b64decode(body if form == _FORM else "", validate=True)
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise VaultError(f"the sealed text of {context} does not open: it was altered, or sealed elsewhere") from error

    def keep(self, path: Path, secret: bytes, context: str) -> None:
        """Seal a secret into a file of its own, once: one that is there stays as it is."""
        text = json.dumps({"version": 1, "sealed": self.seal(secret, context)}, indent=2) + "\n"
        write_once(path, text.encode(), self._runtime)

    def kept(self, path: Path, context: str) -> bytes:
        """The secret of such a file. Raises VaultError when it is damaged, or sealed for another vault or context."""
        try:
            sealed = json.loads(read_private(path))["sealed"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise VaultError(f"{path.name} is damaged; put it back from a backup") from error
        return self.open_sealed(str(sealed), context)

    def __repr__(self) -> str:
        return "Vault(***)"


def write_once(path: Path, content: bytes, runtime: Runtime) -> bool:
    """Create a private file (0600) whole and durable, or leave the one that is there; says whether it was created.

    A link, not a rename: two processes that start together cannot overwrite each other's keys.
    """
    with _beside(path, content, runtime) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True


def write_over(path: Path, content: bytes, runtime: Runtime) -> None:
    """Put a private file (0600) whole and durable in the place of the one that is there. Never for what cannot be made again."""
    with _beside(path, content, runtime) as temporary:
        temporary.replace(path)
        sync_folder(path.parent)


@contextlib.contextmanager
def _beside(path: Path, content: bytes, runtime: Runtime) -> Iterator[Path]:
    """The content, durable, under a name of its own, which is gone at the end."""
    temporary = path.with_name(f".{path.name}.{runtime.random_bytes(8).hex()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_private(path: Path) -> bytes:
    """A file that only its owner, who is us, can read. Raises VaultError with one sentence otherwise."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise VaultError(f"{path.name} is missing; put it back from a backup") from error
    except OSError as error:
        raise VaultError(f"{path.name} cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise VaultError(f"{path.name} is not a plain file")
        if status.st_uid != os.geteuid():
            raise VaultError(f"{path.name} belongs to another user; it must belong to the one that runs penstock")
        if status.st_mode & 0o077:
            raise VaultError(f"{path.name} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); run chmod 600 {path.name}")
        return file.read(_FILE_BYTES_MAX)


def _wrapped_key(home: Path, runtime: Runtime, passphrase: Secret | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"version": 1}
    if passphrase is not None:
        salt = runtime.random_bytes(16).hex()
        fields |= {"wrap": "passphrase", "kdf": {"salt": salt, "memory_kib": MEMORY_KIB, "passes": PASSES, "lanes": LANES}}
        outer = _from_passphrase(passphrase, fields["kdf"])
    else:
        fields |= {"wrap": "key file"}
        write_once(home / "vault.key", runtime.random_bytes(KEY_BYTES).hex().encode() + b"\n", runtime)
        outer = _from_key_file(home / "vault.key")
    nonce = runtime.random_bytes(NONCE_BYTES)
    wrapped = AESGCM(outer).encrypt(nonce, runtime.random_bytes(KEY_BYTES), _binding(fields))
    return fields | {"nonce": nonce.hex(), "wrapped_key": wrapped.hex()}


def _binding(fields: dict[str, Any]) -> bytes:
    """What the wrapped key is tied to: how it is wrapped, so that nobody weakens it unseen."""
    said = {name: fields[name] for name in ("version", "wrap", "kdf") if name in fields}
    return b"penstock vault " + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _from_passphrase(passphrase: Secret, kdf: object) -> bytes:
    if not passphrase.reveal():
        raise VaultError("the passphrase is empty")
    salt, costs = _kdf_parameters(kdf)
    try:
        return argon2.low_level.hash_secret_raw(
            passphrase.reveal().encode(),
            salt,
            time_cost=costs["passes"],
            memory_cost=costs["memory_kib"],
            parallelism=costs["lanes"],
            hash_len=KEY_BYTES,
            type=argon2.low_level.Type.ID,
        )
    except Argon2Error as error:
        raise VaultError("Argon2 failed; it needs 64 MiB of memory") from error


def _kdf_parameters(kdf: object) -> tuple[bytes, dict[str, int]]:
    """Salt and costs, within bounds: a damaged file must not make us ask for a terabyte."""
    fields = kdf if isinstance(kdf, dict) else {}
    salt = str(fields.get("salt"))
    costs = {name: fields.get(name) for name in _KDF_BOUNDS}
    bounded = {name: cost for name, cost in costs.items() if type(cost) is int and _KDF_BOUNDS[name][0] <= cost <= _KDF_BOUNDS[name][1]}
    if len(bounded) != len(costs) or re.fullmatch(r"([0-9a-f]{2}){8,64}", salt, re.ASCII) is None:
        raise VaultError("vault.json is damaged: its Argon2 parameters make no sense; put it back from a backup")
    return bytes.fromhex(salt), bounded


def _from_key_file(path: Path) -> bytes:
    try:
        key = bytes.fromhex(read_private(path).decode("ascii"))
    except ValueError as error:
        raise VaultError(f"{path.name} is damaged; put it back from a backup") from error
    if len(key) != KEY_BYTES:
        raise VaultError(f"{path.name} is damaged; put it back from a backup")
    return key
