"""The seed that every hot address derives from: 256 bits, sealed by the vault in `seed.json`, never printed.

Kept as BIP-39 entropy, so that the very same secret can be written on paper as 24 words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bip_utils import Bip39MnemonicGenerator, Bip39SeedGenerator

from penstock.core.party import Secret
from penstock.runtime import Runtime
from penstock.vault import Vault, VaultError

ENTROPY_BYTES: Final = 32
_FILE: Final = "seed.json"
_CONTEXT: Final = "seed:1"


class Seed:
    """The entropy, and what it stands for."""

    __slots__ = ("_entropy",)

    def __init__(self, entropy: bytes) -> None:
        if len(entropy) not in (16, ENTROPY_BYTES):
            raise ValueError("a seed has 128 or 256 bits of entropy")
        self._entropy = entropy

    def words(self) -> Secret:
        """The BIP-39 mnemonic (English, no passphrase), for a backup on paper and nothing else.

        https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki
        """
        return Secret(Bip39MnemonicGenerator().FromEntropy(self._entropy).ToStr())

    def master(self) -> bytes:
        """The 64 bytes that BIP-32 begins with."""
        return bytes(Bip39SeedGenerator(self.words().reveal()).Generate())

    def __repr__(self) -> str:
        return "Seed(***)"


def has_seed(home: Path) -> bool:
    """Whether there is one."""
    return (home / _FILE).exists()


def create_seed(home: Path, vault: Vault, runtime: Runtime) -> Seed:
    """Make the seed of a home, or load the one that is there; a seed is never replaced. Raises VaultError."""
    if not (home / _FILE).exists():
        vault.keep(home / _FILE, runtime.random_bytes(ENTROPY_BYTES), _CONTEXT)
    return load_seed(home, vault)


def load_seed(home: Path, vault: Vault) -> Seed:
    """The seed of a home. Raises VaultError when there is none or it does not open."""
    if not (home / _FILE).exists():
        raise VaultError(f"there is no seed in {home}; `penstock init` makes one")
    try:
        return Seed(vault.kept(home / _FILE, _CONTEXT))
    except ValueError as error:
        raise VaultError(f"{_FILE} is damaged; put it back from a backup") from error
