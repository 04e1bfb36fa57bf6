"""The counterparty: makes invoices, and says of each part that arrives whether it is taken. Real BOLT 11, real preimages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import bolt11
import coincurve
from bolt11 import Bolt11, Features, FeatureState, MilliSatoshi, Tag, TagChar, Tags
from bolt11.models.features import Feature, FeatureExtra

EXPIRY_S: Final = 3_600
CLTV_FINAL: Final = 80
MEMO_MAX: Final = 200
AMOUNT_MSAT_MAX: Final = 10**14 - 1
"""Below 1,000 bitcoins: from there on the package writes round amounts a thousand times too small."""
_FEATURES: Final[Mapping[Feature | FeatureExtra, FeatureState]] = {
    Feature.var_onion_optin: FeatureState.required,
    Feature.payment_secret: FeatureState.required,
    Feature.basic_mpp: FeatureState.supported,
}


@dataclass(slots=True)
class Asked:
    """One invoice of the recipient's. `taken_msat` counts all that was ever taken for it."""

    text: str
    preimage: bytes
    amount_msat: int
    expires_ms: int
    taken_msat: int = 0
    times_taken: int = 0

    @property
    def payment_hash(self) -> str:
        """In lower case hex."""
        return hashlib.sha256(self.preimage).hexdigest()


class Recipient:
    """A node that is paid. `greedy`: it takes a payment for an invoice that was paid before, as no honest one does."""

    def __init__(self, prefix: str, *, seed: int) -> None:
        self._prefix = prefix
        self._seed = seed
        self._key = coincurve.PrivateKey(self._secret("key"))
        self._asked: dict[str, Asked] = {}
        self.online = True
        self.greedy = False

    def _secret(self, name: str) -> bytes:
        return hashlib.sha256(f"lightning recipient {self._seed} {name}".encode()).digest()

    @property
    def identity(self) -> str:
        """The node's public key."""
        return self._key.public_key.format().hex()

    def invoice(self, amount_msat: int, *, now_ms: int, expiry_s: int = EXPIRY_S, memo: str = "") -> Asked:
        """A new invoice; 0 asks for any amount. Raises ValueError."""
        if len(memo) > MEMO_MAX or not 1 <= expiry_s <= 2**31:
            raise ValueError(f"a memo has up to {MEMO_MAX} characters and an expiry from 1 second on")
        if not 0 <= amount_msat <= AMOUNT_MSAT_MAX:
            raise ValueError(f"an invoice is over up to {AMOUNT_MSAT_MAX} millisatoshi")
        number = len(self._asked)
        preimage = self._secret(f"preimage {number}")
        payment_hash = hashlib.sha256(preimage).hexdigest()
        tags = [
            Tag(TagChar.payment_hash, payment_hash),
            Tag(TagChar.payment_secret, self._secret(f"secret {number}").hex()),
            Tag(TagChar.description, memo or f"invoice {number + 1} of a box"),
            Tag(TagChar.features, Features.from_feature_list(dict(_FEATURES))),
            Tag(TagChar.expire_time, expiry_s),
            Tag(TagChar.min_final_cltv_expiry, CLTV_FINAL),
        ]
        said = Bolt11(self._prefix, now_ms // 1000, Tags(tags), MilliSatoshi(amount_msat) if amount_msat else None)
        text = bolt11.encode(said, self._key.to_hex())
        self._asked[payment_hash] = Asked(text, preimage, amount_msat, (now_ms // 1000 + expiry_s) * 1000)
        return self._asked[payment_hash]

    def asked(self, payment_hash: str) -> Asked | None:
        """The invoice of a hash."""
        return self._asked.get(payment_hash)

    def takes(self, payment_hash: str, amount_msat: int, *, now_ms: int) -> bool:
        """Whether it would release the preimage for so much now. Nothing is taken yet."""
        asked = self._asked.get(payment_hash)
        if asked is None or now_ms > asked.expires_ms or (asked.times_taken and not self.greedy):
            return False
        return amount_msat >= asked.amount_msat

    def take(self, payment_hash: str, amount_msat: int) -> bytes:
        """The preimage, for parts of so much together."""
        asked = self._asked[payment_hash]
        asked.taken_msat += amount_msat
        asked.times_taken += 1
        return asked.preimage
