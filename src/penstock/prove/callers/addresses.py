"""Addresses that are almost right, and what independent decoders say of them (test plan, C9).

The judges share no decoder with the codecs that they judge: bip-utils (and base58 for X-addresses) here; our own over keccak, embit, base58 for
TRON and xrpl-py there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import base58
from bip_utils import (
    Bech32ChecksumError,
    EthAddrDecoder,
    P2PKHAddrDecoder,
    P2SHAddrDecoder,
    P2TRAddrDecoder,
    P2WPKHAddrDecoder,
    SegwitBech32Decoder,
    TrxAddrDecoder,
    XrpAddrDecoder,
)

Judge = Callable[[str], bool]

SEEDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ETH": ("0x52908400098527886E0F7030069857D2E4169EE7", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xde709f2102306220921060314715629080e2fb77"),
        "TRX": ("TVAqQTeGBscB3mH9FTe5yG7QWdNUDWyRTM", "TNPeeaaFB7K9cmo4uQpcU32zGK8G1NYqeL"),
        "XRP": ("rQB91FSa7MzVkMP7rpDPYCX1iVTux7Eu2W", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ"),
        "BTC": (
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        ),
    }
)  # fmt: skip
"""Published examples of each family's main network: EIP-55, TIP documents, xrpl.org, BIP-173 and BIP-350."""

ELSEWHERE: Final = (
    "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "bcrt1ps98avqz3l9z3pg5e0w0w6nnml7h40slfsuw4q9z8wz60m2gsgvks7ngx8y", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
    "LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1", "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9", "T7uMMMVqr4jEGBH2VLS9YPXKZsqPyaTJ4iUPVfyRu35Cpyj", "41d148171f1ad5a76a4ddd7bf2a9fa2ab66d4e0cc2",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", "BC1SW50QA3JX3S", "bc1zw508d6qejxtdg4y5r3zarvaryvg6kdaj", "bc1pw5dgrnzv", "vitalik.eth", "0x0", "0x", "xrp", "T", "1",
)  # fmt: skip
"""Of other networks, of other witness versions, with the other checksum (BIP-173 for version 1, BIP-350 for version 0), and no addresses."""

NOBODYS: Final = frozenset({"rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "rrrrrrrrrrrrrrrrrrrrrhoLvTp", "rrrrrrrrrrrrrrrrrrrrBZbvji"})
"""Accounts of the XRP Ledger that everybody or nobody has the key of; the codec refuses them by name."""

LIKE: Final = {
    "a": "\u0430",
    "e": "\u0435",
    "o": "\u043e",
    "c": "\u0441",
    "x": "\u0445",
    "T": "\u0422",
    "B": "\u0412",
    "0": "O",
    "1": "l",
    "2": "\uff12",
    "l": "I",
    "O": "0",
}


def mutations(seeds: tuple[str, ...], source: random.Random) -> Iterator[str]:
    """The seeds, those of every other network, and changes of the seeds, without end."""
    yield from seeds
    yield from ELSEWHERE
    yield from (seed for others in SEEDS.values() for seed in others)
    changes = (_replaced, _dropped, _doubled, _swapped, _case, _lookalike, _wrapped, _prefixed, _inserted, _upper, _lower, _two)
    while True:
        yield source.choice(changes)(source.choice(seeds), source)


def _replaced(text: str, source: random.Random) -> str:
    at = source.randrange(len(text))
    return text[:at] + source.choice("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") + text[at + 1 :]


def _dropped(text: str, source: random.Random) -> str:
    at = source.randrange(len(text))
    return text[:at] + text[at + 1 :]


def _doubled(text: str, source: random.Random) -> str:
    at = source.randrange(len(text))
    return text[:at] + text[at] + text[at:]


def _swapped(text: str, source: random.Random) -> str:
    at = source.randrange(len(text) - 1)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _case(text: str, source: random.Random) -> str:
    at = source.randrange(len(text))
    return text[:at] + text[at].swapcase() + text[at + 1 :]


def _lookalike(text: str, source: random.Random) -> str:
    ours = [at for at, character in enumerate(text) if character in LIKE]
    if not ours:
        return text
    at = source.choice(ours)
    return text[:at] + LIKE[text[at]] + text[at + 1 :]


def _wrapped(text: str, source: random.Random) -> str:
    before, after = source.choice(
        (
            (" ", ""),
            ("", " "),
            ("", "\n"),
            ("\ufeff", ""),
            ("", "\u200b"),
            ("bitcoin:", ""),
            ("ethereum:", "@1"),
            ("", "?amount=1"),
            ('"', '"'),
        )
    )
    return before + text + after


def _prefixed(text: str, source: random.Random) -> str:
    return source.choice(("0x", "0X", "bc1", "tb1", "x", "XRP", "41")) + text[source.choice((0, 1, 2, 3)) :]


def _inserted(text: str, source: random.Random) -> str:
    """Also the known weakness of bech32: a q more or less before a final p."""
    return text[:-1] + "q" * source.randrange(1, 5) + text[-1]


def _upper(text: str, source: random.Random) -> str:  # noqa: ARG001  each change has the same two arguments
    return text.upper()


def _lower(text: str, source: random.Random) -> str:  # noqa: ARG001
    return text.lower()


def _two(text: str, source: random.Random) -> str:
    return _replaced(_replaced(text, source), source)


# ----------------------------------------------------------------------------------------------------------------- the judges


def is_ethereum(text: str) -> bool:
    """EIP-55; all lower and all upper case carry no checksum."""
    digits = text[2:]
    if not (text.startswith("0x") and len(digits) == 40 and text.isascii() and all(c in "0123456789abcdefABCDEF" for c in digits)):
        return False
    return digits in (digits.lower(), digits.upper()) or _decodes(EthAddrDecoder.DecodeAddr, text)


def is_tron(text: str) -> bool:
    """Base58Check of 0x41 and 20 bytes, or those bytes in hexadecimal."""
    return _decodes(TrxAddrDecoder.DecodeAddr, text) or re.fullmatch(r"41[0-9a-fA-F]{40}", text, re.ASCII) is not None


def is_xrp(text: str) -> bool:
    """A classic address, or an X-address of the main network (XLS-5: 05 44, 20 bytes, flag, tag)."""
    if text != text.strip() or text in NOBODYS:
        return False
    if not text.startswith("X"):
        return _decodes(XrpAddrDecoder.DecodeAddr, text)
    try:
        raw = base58.b58decode_check(text.encode("ascii"), alphabet=base58.XRP_ALPHABET)
    except ValueError:
        return False
    flag, tag, rest = raw[22:23], raw[23:27], raw[27:]
    return (
        raw[:2] == b"\x05\x44" and len(raw) == 31 and (flag == b"\x01" or (flag == b"\x00" and tag == b"\x00" * 4)) and rest == b"\x00" * 4
    )


def is_bitcoin(text: str) -> bool:
    """Base58Check of versions 0 and 5, or segregated witness versions 0 and 1 in one case."""
    return (
        _decodes(lambda one: P2PKHAddrDecoder.DecodeAddr(one, net_ver=b"\x00"), text)
        or _decodes(lambda one: P2SHAddrDecoder.DecodeAddr(one, net_ver=b"\x05"), text)
        or _decodes(lambda one: P2WPKHAddrDecoder.DecodeAddr(one, hrp="bc"), text)
        or _decodes(lambda one: P2TRAddrDecoder.DecodeAddr(one, hrp="bc"), text)
        or _is_script_hash(text)
    )


def _is_script_hash(text: str) -> bool:
    def decode(one: str) -> None:
        version, program = SegwitBech32Decoder.Decode("bc", one)
        if version != 0 or len(program) != 32:
            raise ValueError(one)

    return _decodes(decode, text)


def _decodes(decode: Callable[[str], object], text: str) -> bool:
    if not text.isascii():
        return False
    try:
        decode(text)
    except (ValueError, KeyError, IndexError, OverflowError, Bech32ChecksumError):
        return False
    return True


JUDGES: Final[Mapping[str, Judge]] = MappingProxyType({"ETH": is_ethereum, "TRX": is_tron, "XRP": is_xrp, "BTC": is_bitcoin})
