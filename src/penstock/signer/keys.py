"""Private keys from the seed, and signatures with them. Nothing here prints, stores or returns a key."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final, cast

import coincurve
from bip_utils import Bip32Slip10Secp256k1

from penstock.signer.addresses import PublicKeys
from penstock.signer.families import PATHS
from penstock.signer.seed import Seed

# RFC 6979 itself has no vector of secp256k1. The one that libraries share: key 1, SHA-256 of "Satoshi Nakamoto".
# https://bitcointalk.org/index.php?topic=285142.40, https://github.com/trezor/trezor-crypto tests/test_check.c
_KNOWN_DIGEST: Final = bytes.fromhex("a0dc65ffca799873cbea0ac274015b9526505daaaed385155425f7337704883e")
_KNOWN_SIGNATURE: Final = bytes.fromhex(
    "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d82442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"
)


class KeysUnusable(Exception):
    """The curve library is not the one we trust, or not deterministic: nothing is signed on this machine."""


class LaneKey:
    """The key of one lane of one family."""

    __slots__ = ("_key", "public_key")

    def __init__(self, secret: bytes) -> None:
        self._key = coincurve.PrivateKey(secret)
        self.public_key = self._key.public_key.format(compressed=False)

    def sign(self, digest: bytes) -> tuple[int, int, int]:
        """Recovery bit, r and s of a deterministic (RFC 6979), low-s signature of 32 bytes. For this package alone."""
        signature = self._key.sign_recoverable(digest, hasher=cast("Any", None))
        return signature[64], int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")

    def __repr__(self) -> str:
        return "LaneKey(***)"


def derive(seed: Seed, path: str) -> LaneKey:
    """The key at a path, by BIP-32."""
    return LaneKey(Bip32Slip10Secp256k1.FromSeed(seed.master()).DerivePath(path).PrivateKey().Raw().ToBytes())


def lane_keys(seed: Seed) -> dict[str, LaneKey]:
    """The key at each path of a lane."""
    master, keys = Bip32Slip10Secp256k1.FromSeed(seed.master()), dict[str, LaneKey]()
    for parent, paths in groupby(sorted(PATHS), key=lambda path: path.rpartition("/")[0]):
        above = master.DerivePath(parent)  # once: lanes differ in the last step alone
        keys |= {path: LaneKey(above.DerivePath(path.rpartition("/")[2]).PrivateKey().Raw().ToBytes()) for path in paths}
    return keys


def public_keys(seed: Seed) -> PublicKeys:
    """What is public of a seed. By the fingerprint an offline signer knows that it holds the same one."""
    fingerprint = str(Bip32Slip10Secp256k1.FromSeed(seed.master()).FingerPrint().ToHex())
    return PublicKeys(fingerprint, {path: key.public_key for path, key in lane_keys(seed).items()})


def check_library() -> None:
    """That signatures come from libsecp256k1 and are deterministic. Raises KeysUnusable; called before the first signature."""
    library = getattr(coincurve.keys, "lib", None)
    if not hasattr(library, "secp256k1_ecdsa_sign_recoverable"):
        raise KeysUnusable("coincurve is not built on libsecp256k1 here; install its wheel")
    _, r, s = LaneKey((1).to_bytes(32, "big")).sign(_KNOWN_DIGEST)
    if r.to_bytes(32, "big") + s.to_bytes(32, "big") != _KNOWN_SIGNATURE:
        raise KeysUnusable("coincurve does not sign deterministically (RFC 6979) here")
