"""A home with the real signer's process, and honest intents of every family for it: where the red team breaks in, and what tests talk to."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import coincurve
from msgspec.structs import replace

from penstock.catalog import Catalog
from penstock.config import Settings, load
from penstock.core.intent import Intent, Payment, Resource
from penstock.core.money import Network, Token
from penstock.core.seal import OrderSeal
from penstock.devnet.lightning.recipient import Recipient
from penstock.runtime import SystemRuntime
from penstock.setup import initialise
from penstock.signer.addresses import load_public
from penstock.signer.child import SignerChild
from penstock.signer.client import RemoteSigner
from penstock.signer.families import FAMILIES
from penstock.signer.place import SEAL_CONTEXT, SEAL_FILE, socket_of
from penstock.signer.policy import allowed_networks, load_catalog
from penstock.vault import Vault

COINS: Final = (("ETH", "ETH"), ("USDT", "ETH"), ("TRX", "TRX"), ("USDT", "TRX"), ("XRP", "XRP"), ("BTC", "BTC"), ("SATS", "LIGHTNING"))
"""Coin and network of what is paid; by the coin the caps of a house know it."""
NODE_ID: Final = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
UNITS: Final = 25_000
"""An amount that every family carries: no dust, no fraction, below every cap."""
_TERMS: Final[Mapping[str, tuple[dict[str, int], int]]] = MappingProxyType(
    {
        "evm": ({"gas_limit": 60_000, "max_fee_per_gas": 10**9, "max_priority_fee_per_gas": 10**8}, 10**15),
        "tron": ({"ref_block": 7, "ref_block_hash": 7, "net_fee_max": 300_000}, 30_000_000),
        "xrp": ({"fee": 12, "last_ledger": 1_000}, 5_000),
        "bitcoin": ({"fee": 2_000, "change": 1}, 20_000),
        "lightning": ({"fee_limit_msat": 10_000, "cltv_limit": 1_008, "timeout_s": 60}, 10_000),
    }
)
"""Terms and fee cap of one plain payment; what is a time is added."""


@dataclass(slots=True)
class SignerHouse:
    """One home, its signer, and the numbers that no two intents share."""

    settings: Settings
    runtime: SystemRuntime
    seal: OrderSeal
    signer: RemoteSigner
    child: SignerChild
    source: random.Random
    senders: dict[str, str]
    catalog: Catalog
    invoices: Recipient = field(default_factory=lambda: Recipient("bc", seed=1))
    numbers: int = 0

    @property
    def socket(self) -> Path:
        """Where the signer listens."""
        return socket_of(self.settings)

    def network(self, chain: str) -> Network:
        """Of the catalogue."""
        network = self.catalog.network(chain)
        if network is None:
            raise LookupError(chain)
        return network

    def sealed(self, intent: Intent) -> Intent:
        """As the gateway's own door would have sealed it."""
        payments = [replace(p, seal=self.seal.of(p, chain=intent.chain, token_id=intent.token_id)) for p in intent.payments]
        return replace(intent, payments=tuple(payments))

    def recipient(self, chain: str) -> str:
        """A stranger's address, or a new invoice."""
        network = self.network(chain)
        if network.family == "lightning":
            return self.invoices.invoice(UNITS, now_ms=self.runtime.now_ms()).text
        key = coincurve.PrivateKey(self.source.randbytes(31).rjust(32, b"\1"))
        return FAMILIES[network.family].address(key.public_key.format(compressed=False), network.chain_id)

    def honest(self, token: Token, *, units: int = UNITS) -> Intent:
        """A new order's payment, as a rail would bind it."""
        self.numbers += 1
        number, network, now_ms = self.numbers, self.network(token.chain), self.runtime.now_ms()
        terms, fee_cap = _TERMS[network.family]
        resources: tuple[Resource, ...] = ()
        recipient = self.recipient(token.chain)
        match network.family:
            case "tron":
                terms = terms | {"expiration": now_ms + 600_000} | ({"fee_limit": 10_000_000} if token.contract else {})
            case "lightning":
                terms = terms | {"send_by_ms": now_ms + 300_000}
                resources = (Resource(_hash_of(self.invoices, recipient)),)
            case "bitcoin":
                resources = (Resource(f"{number:064x}:0", units + 40_000),)
            case _:
                pass
        payment = Payment(1_000_000 + number, recipient, "", units, key=f"1/order-{number}")
        return self.sealed(
            Intent(
                attempt_id=number,
                version=1,
                kind="pay",
                chain=token.chain,
                family=network.family,
                chain_id=network.chain_id,
                sender=self.senders[token.chain],
                slot=number,
                token_id=token.id,
                contract=token.contract,
                payments=(payment,),
                terms=terms,
                fee_cap=fee_cap,
                resources=resources,
            )
        )

    def tokens(self) -> list[Token]:
        """What is paid here, a coin a network."""
        return [token for symbol, chain in COINS if (token := self.catalog.by_symbol(symbol, chain)) is not None]


def _hash_of(recipient: Recipient, text: str) -> str:
    return next(payment_hash for payment_hash, asked in recipient._asked.items() if asked.text == text)


def environment_of(home: Path, **more: str) -> dict[str, str]:
    """What the signer's process finds around it: these networks on, and nothing of the caller's own Penstock."""
    names = {chain for _, chain in COINS}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    networks = {f"PENSTOCK_NETWORKS__{name}__RPC_URLS": "http://127.0.0.1:9" for name in names - {"LIGHTNING"}}
    networks |= {"PENSTOCK_NETWORKS__LIGHTNING__RPC_URLS": "lnd+http://127.0.0.1:9", "PENSTOCK_NETWORKS__LIGHTNING__NODE_ID": NODE_ID}
    return kept | networks | {"PENSTOCK_HOME": str(home)} | more


@contextlib.asynccontextmanager
async def signer_house(home: Path, *, seed: int = 1, **more: str) -> AsyncIterator[SignerHouse]:
    """Made by `init`, with its signer running as `serve` would have it. `more` are settings by their environment's names."""
    environment = environment_of(home, **more)
    settings = load(home, environment)
    await initialise(settings, key_file=True, asked=None)
    runtime = SystemRuntime()
    child = SignerChild(runtime, home, environment, None)
    try:
        await child.start()
        seal = OrderSeal(Vault.open(home, runtime, passphrase=None).kept(home / SEAL_FILE, SEAL_CONTEXT))
        catalog = load_catalog(settings)
        allowed = allowed_networks(settings, catalog)
        signer = RemoteSigner(load_public(home), allowed, socket_of(settings), runtime)
        senders = {chain: await signer.address(chain, 0) for chain in allowed}
        yield SignerHouse(settings, runtime, seal, signer, child, random.Random(seed), senders, catalog)
    finally:
        await child.stop()
        runtime.close()
