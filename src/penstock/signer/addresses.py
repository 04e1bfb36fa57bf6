"""Addresses without keys: `public.json` in the home says what is public of the seed, and that is all the gateway ever has of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.core.intent import Codec, Death, Intent, OfflineCodec, Signed, SignRefused, Standing
from penstock.runtime import Runtime
from penstock.signer.families import FAMILIES, KEYED, LANES, OFFLINE
from penstock.signer.policy import AllowedNetwork
from penstock.vault import VaultError, read_private, write_once, write_over

FILE: Final = "public.json"


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The public key (65 bytes, uncompressed) at each path of a lane, and the fingerprint of the master key (8 hex digits, BIP-32)."""

    fingerprint: str
    keys: Mapping[str, bytes]


class PublicAddresses:
    """The addresses of a seed and what follows from them, without the right to sign."""

    def __init__(self, public: PublicKeys, allowed: Mapping[str, AllowedNetwork]) -> None:
        self._public = public
        self._allowed = dict(allowed)

    async def address(self, chain: str, lane: int) -> str:
        """The hot address of a lane. Raises ValueError for a network or lane that has no key here."""
        network = self._allowed.get(chain)
        if network is None:
            raise ValueError(f"no key for network {chain}")
        return self._address(network, lane)

    def _address(self, network: AllowedNetwork, lane: int = 0) -> str:
        if network.node and lane == 0:
            return network.node
        return self._codec(network).address(self._public_key(network, lane)[1], network.chain_id)

    def addresses(self, chain: str) -> list[str]:
        """In order of their lanes, as far as this home knows their keys."""
        network = self._allowed[chain]
        lanes = range(1 if network.node else LANES[network.family])
        return [self._address(network, lane) for lane in lanes if network.node or self._lane_path(network, lane) in self._public.keys]

    def has(self, chain: str) -> bool:
        """Whether there is an address of ours on the network; a node that keeps the coins itself has none until its id is set."""
        network = self._allowed.get(chain)
        return network is not None and (bool(network.node) or network.family in KEYED)

    def export(self, intent: Intent) -> str:
        """The transaction of an intent for an offline signer (Bitcoin: PSBT, base64). Raises ValueError where there is no such form."""
        offline = self._offline(intent)
        path, key = self._public_key(self._allowed[intent.chain], 0)
        return offline.export_psbt(intent, public_key=key, fingerprint=self._public.fingerprint, path=path)

    def check_export(self, intent: Intent, text: str) -> Signed:
        """What an offline signer made of it, exactly what the intent says. Raises ValueError."""
        return self._offline(intent).import_psbt(intent, text)

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Always refused."""
        raise SignRefused(f"this process reads addresses and does not sign ({len(intents)} asked)")

    async def bury(self, deaths: list[Death]) -> None:
        """Always refused."""
        raise SignRefused(f"this process reads addresses and keeps no journal ({len(deaths)} deaths told)")

    async def standing(self) -> Standing:
        """It signs nothing, ever."""
        return Standing("this process reads addresses and does not sign", {})

    @staticmethod
    def _offline(intent: Intent) -> OfflineCodec:
        codec = OFFLINE.get(intent.family)
        if codec is None:
            raise ValueError(f"transactions of family {intent.family} have no form for an offline signer")
        return codec

    @staticmethod
    def _codec(network: AllowedNetwork) -> Codec:
        if network.family not in FAMILIES:
            raise ValueError(f"no key for a network of family {network.family}")
        return FAMILIES[network.family]

    def _public_key(self, network: AllowedNetwork, lane: int) -> tuple[str, bytes]:
        path = self._lane_path(network, lane)
        if path not in self._public.keys:
            raise ValueError(f"no key for lane {lane}")
        return path, self._public.keys[path]

    def _lane_path(self, network: AllowedNetwork, lane: int) -> str:
        return self._codec(network).path(network.chain_id, lane) if 0 <= lane < LANES[network.family] else ""


def keep_public(home: Path, public: PublicKeys, runtime: Runtime) -> None:
    """Write what is public of a home's seed. Raises VaultError when the home has that of another seed."""
    fields = {"version": 1, "fingerprint": public.fingerprint, "keys": {path: key.hex() for path, key in public.keys.items()}}
    content = (json.dumps(fields, indent=2) + "\n").encode()
    if not write_once(home / FILE, content, runtime) and _is_part_of(load_public(home), public):
        write_over(home / FILE, content, runtime)  # a home of before had one hot address a network
    if load_public(home) != public:
        raise VaultError(f"{FILE} is not of the seed of this home; put the file and the signer's folder back from one backup")


def _is_part_of(known: PublicKeys, public: PublicKeys) -> bool:
    return known.fingerprint == public.fingerprint and known.keys.items() < public.keys.items()


def load_public(home: Path) -> PublicKeys:
    """What is public of a home's seed. Raises VaultError."""
    try:
        fields = json.loads(read_private(home / FILE))
        keys = {str(path): bytes.fromhex(key) for path, key in fields["keys"].items()}
        return PublicKeys(str(fields["fingerprint"]), keys)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise VaultError(f"{FILE} is damaged; put it back from a backup, or remove it and run `penstock init`") from error
