"""What anybody on the way may do to a transaction without its key: the same payment with another signature that holds as well.

For every ECDSA signature (r, s) the pair (r, n - s) is one too. Nodes do not relay the greater s (BIP-146), but blocks may have it. In a
witness it changes the wtxid alone; in an input script the id itself.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from embit.script import Script
from embit.transaction import Transaction

from penstock.devnet.bitcoin.transaction import Tx, opcodes, read

PUSH_MAX: Final = 75
"""Longest data that a script pushes with its length alone."""

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1's group. https://www.secg.org/sec2-v2.pdf, section 2.4.1"""


def twin_of(tx: Tx) -> Tx:
    """The transaction with the other signature in its first input. Raises ValueError where there is none of that kind."""
    parsed = Transaction.parse(tx.raw)
    first = parsed.vin[0]
    if first.witness.items:
        first.witness.items[0] = _other(first.witness.items[0])
    else:
        pushed = [data for _, data in opcodes(first.script_sig.data)]
        if not pushed or max(map(len, pushed)) > PUSH_MAX:
            raise ValueError("its first input is not spent by plain signatures")
        changed = [_other(pushed[0]), *pushed[1:]]
        first.script_sig = Script(b"".join(bytes([len(data)]) + data for data in changed))
    return read(parsed.serialize())


def _other(signature: bytes) -> bytes:
    """The same with n - s; its last byte, the sighash type, stays."""
    try:
        r, s = decode_dss_signature(signature[:-1])
    except ValueError as error:
        raise ValueError("its first input has no ECDSA signature in front") from error
    other: bytes = encode_dss_signature(r, ORDER - s) + signature[-1:]
    return other
