"""The bytes of an EVM chain: addresses, token calls, transactions and signatures. Pure: no I/O, no clock, no key.

Addresses are text in their checksummed form (EIP-55), hashes and ids are 0x text in lower case, amounts are base units
(wei for the native coin), raw things are `bytes`. The signer, the rail and the devnet share this one file, so that what
is built, signed, checked and mined is the same thing by construction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn, cast

import coincurve
import rlp
from Crypto.Hash import keccak as _keccak

from penstock.core.intent import Intent, Key, Signed
from penstock.rails.base import InvalidDestination

ZERO_ADDRESS: Final = "0x" + "00" * 20
"""Nobody's address: what is sent there is gone."""

GAS_PLAIN: Final = 21_000
"""Gas of a plain transfer of the native coin to an account without code (Yellow Paper, G_transaction)."""

GAS_PRICE_ORACLE: Final = "0x420000000000000000000000000000000000000F"
"""OP-stack predeploy that knows the L1 fee. https://specs.optimism.io/protocol/predeploys.html#gaspriceoracle"""

SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of the curve's group; a signature's s lies in its lower half (EIP-2). https://www.secg.org/sec2-v2.pdf"""

UINT256_MAX: Final = 2**256 - 1
NONCE_MAX: Final = 2**64 - 2
"""Greatest usable nonce. https://eips.ethereum.org/EIPS/eip-2681"""

RAW_BYTES_MAX: Final = 128 * 1024
"""Nodes take no larger transaction (geth, txMaxSize)."""

_DYNAMIC: Final = b"\x02"
_HEX_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_TRANSFER_SELECTOR: Final = bytes.fromhex("a9059cbb")
"""transfer(address,uint256), written down for `broken_rules` and not computed by what it checks. https://eips.ethereum.org/EIPS/eip-20"""
_FEE_TERMS: Final = ({"gas_limit", "max_fee_per_gas", "max_priority_fee_per_gas"}, {"gas_limit", "gas_price"})


class InvalidTransaction(ValueError):
    """Bytes that are no transaction which a node of this network could take; the text says why."""


def keccak256(data: bytes) -> bytes:
    """The hash of Ethereum: Keccak-256 as submitted, not NIST's SHA3-256."""
    return _keccak.new(digest_bits=256, data=data).digest()


def _selector(signature: str) -> bytes:
    return keccak256(signature.encode("ascii"))[:4]


_TRANSFER: Final = _selector("transfer(address,uint256)")
_BALANCE_OF: Final = _selector("balanceOf(address)")
_GET_L1_FEE: Final = _selector("getL1Fee(bytes)")
TRANSFER_TOPIC: Final = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
"""First topic of ERC-20's Transfer event. https://eips.ethereum.org/EIPS/eip-20#transfer-1"""


# Addresses


def checksum(address: str) -> str:
    """An address with the upper case letters that EIP-55 prescribes, whatever its case was.

    https://eips.ethereum.org/EIPS/eip-55. Raises ValueError when it is not 0x and 40 hexadecimal digits.
    """
    if _HEX_ADDRESS.fullmatch(address) is None:
        raise ValueError("an address is 0x and 40 hexadecimal digits")
    return _checksummed(address[2:].lower())


@lru_cache(maxsize=4096)
def _checksummed(digits: str) -> str:
    """The same few addresses come again and again: contracts, our own, and a payout's recipient on each step of its road."""
    marks = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(digit.upper() if mark >= "8" else digit for digit, mark in zip(digits, marks, strict=False))


def parse_address(text: str) -> str:
    """A destination as people write it, in its checksummed form (EIP-55).

    All lower and all upper case carry no checksum and are taken. Raises InvalidDestination with one sentence; the right
    checksum is never offered, since the mistake may as well be in the digits.
    """
    if _HEX_ADDRESS.fullmatch(text) is None:
        _refuse(text)
    canonical = checksum(text)
    digits = text[2:]
    if digits not in (canonical[2:], digits.lower(), digits.upper()):
        raise InvalidDestination("The address is mistyped: its upper and lower case letters do not match its checksum (EIP-55).")
    if canonical == ZERO_ADDRESS:
        raise InvalidDestination("The zero address belongs to nobody; give the recipient's own address.")
    return canonical


def _refuse(text: str) -> NoReturn:
    """Why this is no address at all."""
    if text != text.strip():
        raise InvalidDestination("The address has a space or line break at its beginning or end; remove it.")
    if (not text.startswith(("0x", "0X")) and "." in text) or text.endswith(".eth"):
        raise InvalidDestination("This looks like a name, and names are not resolved; give the 0x address itself.")
    for position, character in enumerate(text[:100], start=1):
        if not "!" <= character <= "~":
            raise InvalidDestination(
                f"Character {position} of the address is not a plain ASCII letter or digit (it may only look like one); "
                "copy the address again from its source."
            )
    if text.startswith("0X") or not text.startswith("0x"):
        raise InvalidDestination("The address must begin with 0x (small x), followed by 40 hexadecimal digits.")
    if len(text) != 42:
        raise InvalidDestination(f"The address has {len(text) - 2} digits after 0x where 40 are needed.")
    raise InvalidDestination("The address may hold only 0-9 and a-f after 0x.")


def address_of_public_key(public_key: bytes) -> str:
    """The account of a secp256k1 public key in SEC form (33 or 65 bytes): the last 20 bytes of its keccak.

    Ethereum Yellow Paper, appendix F. Raises ValueError when the bytes are no point of the curve.
    """
    point = coincurve.PublicKey(public_key).format(compressed=False)
    return checksum("0x" + keccak256(point[1:])[12:].hex())


# Token calls and logs: https://eips.ethereum.org/EIPS/eip-20, https://docs.soliditylang.org/en/latest/abi-spec.html


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _address_word(address: str) -> bytes:
    return bytes.fromhex(checksum(address)[2:]).rjust(32, b"\0")


def transfer_call_data(recipient: str, units: int) -> bytes:
    """`transfer(recipient, units)` of ERC-20; units are the token's own base units. Raises ValueError out of range."""
    if not 0 <= units <= UINT256_MAX:
        raise ValueError("a token amount is from 0 to 2^256 - 1 base units")
    return _TRANSFER + _address_word(recipient) + _word(units)


def balance_of_call_data(owner: str) -> bytes:
    """`balanceOf(owner)` of ERC-20; answered by one word, see `decode_uint256`."""
    return _BALANCE_OF + _address_word(owner)


def get_l1_fee_call_data(unsigned: bytes) -> bytes:
    """`getL1Fee(unsigned)` of the OP-stack's GasPriceOracle: wei that L1 costs for a transaction of these unsigned bytes.

    Answered by one word. https://docs.optimism.io/stack/transactions/fees
    """
    padding = -len(unsigned) % 32
    return _GET_L1_FEE + _word(32) + _word(len(unsigned)) + unsigned + b"\0" * padding


def decode_uint256(answer: bytes | str) -> int:
    """The one word that a call answered, as bytes or 0x text. Raises ValueError when it is not exactly 32 bytes."""
    data = _data(answer) if isinstance(answer, str) else answer
    if len(data) != 32:
        raise ValueError(f"the call answered {len(data)} bytes where one word of 32 was due")
    return int.from_bytes(data, "big")


def _data(text: object) -> bytes:
    if not isinstance(text, str) or re.fullmatch(r"0x([0-9a-fA-F]{2})*", text, re.ASCII) is None:
        raise ValueError("not 0x and hexadecimal bytes")
    return bytes.fromhex(text[2:])


def parse_transfer_log(log: Mapping[str, Any]) -> tuple[str, str, str, int] | None:
    """A log of JSON-RPC as (contract, sender, recipient, units), or None when it is not exactly ERC-20's Transfer.

    Strict: three topics, one word of data, clean address padding, not `removed`. A log with four topics is an NFT's.
    """
    topics = log.get("topics")
    if log.get("removed") or not isinstance(topics, Sequence) or len(topics) != 3:
        return None
    try:
        words = [_data(topic) for topic in topics]
        units = decode_uint256(_data(log.get("data")))
        contract = checksum(str(log.get("address")))
    except ValueError:
        return None
    if "0x" + words[0].hex() != TRANSFER_TOPIC or any(len(word) != 32 or any(word[:12]) for word in words[1:]):
        return None
    sender, recipient = (checksum("0x" + word[12:].hex()) for word in words[1:])
    return contract, sender, recipient, units


def exact_transfer_count(logs: Iterable[Mapping[str, Any]], contract: str, sender: str, recipient: str, units: int) -> int:
    """How many of a receipt's logs are this very transfer. A payment is proved by exactly one (failure model, section 5)."""
    wanted = (checksum(contract), checksum(sender), checksum(recipient), units)
    return sum(parse_transfer_log(log) == wanted for log in logs)


# Transactions


@dataclass(frozen=True, slots=True)
class UnsignedTransaction:
    """What is signed: a type 2 (EIP-1559) or a legacy replay-protected (type 0, EIP-155) transaction.

    All amounts in wei. A legacy gas price stands in both fee fields, as geth keeps it, so that rules on fees need no
    second form. `to` is None only for the creation of a contract, which Penstock itself never builds.
    https://eips.ethereum.org/EIPS/eip-1559 https://eips.ethereum.org/EIPS/eip-155
    """

    type: Literal[0, 2]
    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    to: str | None
    value: int
    data: bytes

    def __post_init__(self) -> None:
        """Every number within what its field can hold. Raises InvalidTransaction."""
        if self.type == 0 and self.max_priority_fee_per_gas != self.max_fee_per_gas:
            raise InvalidTransaction("a legacy transaction has one gas price")
        if not 0 < self.chain_id <= UINT256_MAX // 2 - 36:
            raise InvalidTransaction("a chain id is a positive number")
        if not 0 <= self.nonce <= NONCE_MAX:
            raise InvalidTransaction("a nonce is from 0 to 2^64 - 2")
        if not 0 <= self.gas_limit < 2**64:
            raise InvalidTransaction("a gas limit is from 0 to 2^64 - 1")
        if not 0 <= self.max_priority_fee_per_gas <= self.max_fee_per_gas <= UINT256_MAX:
            raise InvalidTransaction("max priority fee per gas higher than max fee per gas")
        if not 0 <= self.value <= UINT256_MAX:
            raise InvalidTransaction("a value is from 0 to 2^256 - 1 wei")

    @property
    def fee_max(self) -> int:
        """The most that execution can cost, in wei; an L1 fee comes on top."""
        return self.gas_limit * self.max_fee_per_gas


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A decoded transaction: its content, signature, recovered sender, id, and the very bytes it came as."""

    unsigned: UnsignedTransaction
    y_parity: int
    r: int
    s: int
    sender: str
    txid: str
    raw: bytes


def path(chain_id: int, lane: int) -> str:
    """BIP-44 with SLIP-44's coin 60, the same on every EVM network. https://github.com/bitcoin/bips/blob/master/bip-0044.mediawiki"""
    del chain_id
    return f"m/44'/60'/0'/0/{lane}"


def address(public_key: bytes, chain_id: int) -> str:
    """The account of a key (65 bytes, uncompressed), the same on every EVM network."""
    del chain_id
    return address_of_public_key(public_key)


def same_address(one: str, other: str) -> bool:
    """Letter case is only a checksum."""
    return one.lower() == other.lower()


def expires_ms(intent: Intent) -> None:
    """Nothing: signed bytes stay valid until their nonce is used."""
    del intent


def sign(intent: Intent, key: Key) -> Signed:
    """Build and sign. Raises ValueError."""
    unsigned = build(intent)
    raw = encode_signed(unsigned, *key.sign(signing_hash(unsigned)))
    return Signed(intent.attempt_id, intent.version, transaction_id(raw), raw)


def broken_rules(intent: Intent, signed: Signed) -> list[str]:
    """What in the bytes is not what the intent says. Raises InvalidTransaction for bytes that are none."""
    found, payment = decode(signed.raw, intent.chain_id), intent.payments[0]
    it = found.unsigned
    if intent.kind == "cancel":
        content = (intent.sender, 0, b"")
    elif intent.contract is None:
        content = (payment.recipient, payment.units, b"")
    else:
        recipient = bytes.fromhex(payment.recipient.removeprefix("0x")).rjust(32, b"\0")
        content = (intent.contract, 0, _TRANSFER_SELECTOR + recipient + payment.units.to_bytes(32, "big"))
    rules = {
        "transaction id": found.txid == signed.txid,
        "sender": found.sender == intent.sender,
        "chain id": it.chain_id == intent.chain_id,
        "nonce": it.nonce == intent.slot,
        "recipient": it.to is not None and it.to.lower() == content[0].lower(),
        "value": it.value == content[1],
        "call": it.data == content[2],
        "fee cap": it.gas_limit * it.max_fee_per_gas + intent.terms.get("l1_fee", 0) <= intent.fee_cap,
    }
    return [name for name, holds in rules.items() if not holds]


def build(intent: Intent) -> UnsignedTransaction:
    """The one transaction that this intent means.

    Pay: the native coin goes to the recipient as value, a token by a call of its contract. Cancel: nothing to the sender itself,
    which uses the nonce up. `terms`: gas_limit, and gas_price or max_fee_per_gas with max_priority_fee_per_gas;
    optionally l1_fee (wei, OP-stack), which counts against the cap. The memo has no place in an EVM transaction.
    Raises ValueError for anything else, and when the whole fee could exceed `fee_cap`.
    """
    if intent.family != "evm" or len(intent.payments) != 1:
        raise ValueError("an EVM transaction carries exactly one payment of the family evm")
    terms = dict(intent.terms)
    l1_fee = terms.pop("l1_fee", 0)
    if set(terms) not in _FEE_TERMS or any(type(number) is not int or number < 0 for number in (*terms.values(), l1_fee)):
        raise ValueError("terms are gas_limit with gas_price, or with max_fee_per_gas and max_priority_fee_per_gas, and l1_fee")
    to, value, data = _content(intent)
    legacy = "gas_price" in terms
    transaction = UnsignedTransaction(
        type=0 if legacy else 2,
        chain_id=intent.chain_id,
        nonce=intent.slot,
        max_priority_fee_per_gas=terms["gas_price" if legacy else "max_priority_fee_per_gas"],
        max_fee_per_gas=terms["gas_price" if legacy else "max_fee_per_gas"],
        gas_limit=terms["gas_limit"],
        to=to,
        value=value,
        data=data,
    )
    if transaction.gas_limit < GAS_PLAIN:
        raise ValueError(f"no transaction runs on less than {GAS_PLAIN} gas")
    if transaction.fee_max + l1_fee > intent.fee_cap:
        raise ValueError(f"the fee could be {transaction.fee_max + l1_fee} wei, above its cap of {intent.fee_cap}")
    return transaction


def _content(intent: Intent) -> tuple[str, int, bytes]:
    """Recipient, value and data of an intent."""
    sender = parse_address(intent.sender)
    if intent.kind == "cancel":
        return sender, 0, b""
    if intent.kind != "pay":
        raise ValueError(f"an intent pays or cancels, it does not {intent.kind}")
    payment = intent.payments[0]
    recipient = parse_address(payment.recipient)
    if not 0 < payment.units <= UINT256_MAX:
        raise ValueError("a payment is from 1 to 2^256 - 1 base units")
    if intent.contract is None:
        return recipient, payment.units, b""
    return parse_address(intent.contract), 0, transfer_call_data(recipient, payment.units)


# Encoding: https://ethereum.org/developers/docs/data-structures-and-encoding/rlp/


def _number(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _encode(items: list[Any]) -> bytes:
    encoded: bytes = rlp.encode(items, infer_serializer=False)
    return encoded


def _fields(transaction: UnsignedTransaction) -> list[Any]:
    to = b"" if transaction.to is None else bytes.fromhex(transaction.to[2:])
    tail: list[Any] = [_number(transaction.gas_limit), to, _number(transaction.value), transaction.data]
    if transaction.type == 0:
        return [_number(transaction.nonce), _number(transaction.max_fee_per_gas), *tail]
    head = [transaction.chain_id, transaction.nonce, transaction.max_priority_fee_per_gas, transaction.max_fee_per_gas]
    return [*map(_number, head), *tail, []]


def encode_unsigned(transaction: UnsignedTransaction) -> bytes:
    """The bytes whose keccak is signed; also what GasPriceOracle wants to see.

    https://eips.ethereum.org/EIPS/eip-1559#specification https://eips.ethereum.org/EIPS/eip-155#specification
    """
    if transaction.type == 0:
        return _encode([*_fields(transaction), _number(transaction.chain_id), b"", b""])
    return _DYNAMIC + _encode(_fields(transaction))


def signing_hash(transaction: UnsignedTransaction) -> bytes:
    """The 32 bytes that the key signs."""
    return keccak256(encode_unsigned(transaction))


def encode_signed(transaction: UnsignedTransaction, y_parity: int, r: int, s: int) -> bytes:
    """The bytes that go to a node. Raises InvalidTransaction for a signature that no node takes (EIP-2)."""
    _check_signature(y_parity, r, s)
    if transaction.type == 0:
        return _encode([*_fields(transaction), *map(_number, (transaction.chain_id * 2 + 35 + y_parity, r, s))])
    return _DYNAMIC + _encode([*_fields(transaction), *map(_number, (y_parity, r, s))])


def transaction_id(raw: bytes) -> str:
    """The id of signed bytes: 0x and their keccak. Computed here, never taken from a node."""
    return "0x" + keccak256(raw).hex()


def _check_signature(y_parity: int, r: int, s: int) -> None:
    """https://eips.ethereum.org/EIPS/eip-2"""
    if y_parity not in (0, 1) or not 0 < r < SECP256K1_ORDER or not 0 < s <= SECP256K1_ORDER // 2:
        raise InvalidTransaction("invalid transaction v, r, s values: parity is 0 or 1, s in the lower half (EIP-2)")


def decode(raw: bytes, chain_id: int | None = None) -> SignedTransaction:
    """Signed bytes to their content and sender, taking only the one canonical encoding.

    Raises InvalidTransaction for malformed or non-canonical RLP, numbers with leading zeros, another type than 0 and 2, an
    access list that is not empty, a signature outside EIP-2, no replay protection (EIP-155), or another chain id than given.
    """
    if not 0 < len(raw) <= RAW_BYTES_MAX:
        raise InvalidTransaction(f"a transaction is from 1 to {RAW_BYTES_MAX} bytes")
    if raw[:1] == _DYNAMIC:
        transaction, (y_parity, r, s) = _decode_dynamic(raw[1:])
    elif raw[0] >= 0xC0:
        transaction, (y_parity, r, s) = _decode_legacy(raw)
    else:
        raise InvalidTransaction("transaction type not supported")
    if chain_id is not None and transaction.chain_id != chain_id:
        raise InvalidTransaction(f"invalid chain id for signer: have {transaction.chain_id} want {chain_id}")
    _check_signature(y_parity, r, s)
    if encode_signed(transaction, y_parity, r, s) != raw:
        raise InvalidTransaction("the bytes are not the canonical encoding of what they say")
    sender = _recover(signing_hash(transaction), y_parity, r, s)
    return SignedTransaction(transaction, y_parity, r, s, sender, transaction_id(raw), raw)


def _items(data: bytes, count: int) -> list[Any]:
    try:
        items = rlp.decode(data)
    except (rlp.exceptions.DecodingError, RecursionError) as error:
        raise InvalidTransaction("the bytes are not canonical RLP") from error
    if not isinstance(items, list) or len(items) != count:
        raise InvalidTransaction(f"a transaction of this type has {count} fields")
    return items


def _read_number(item: object, bytes_max: int = 32) -> int:
    if not isinstance(item, bytes) or len(item) > bytes_max or item[:1] == b"\0":
        raise InvalidTransaction("a number is too long, or begins with a zero byte")
    return int.from_bytes(item, "big")


def _read_tail(items: list[Any]) -> tuple[int, str | None, int, bytes]:
    gas_limit, to, value, data = items
    if not isinstance(to, bytes) or len(to) not in (0, 20) or not isinstance(data, bytes):
        raise InvalidTransaction("a recipient is 20 bytes or none, and data are bytes")
    return _read_number(gas_limit, 8), checksum("0x" + to.hex()) if to else None, _read_number(value), data


def _decode_dynamic(body: bytes) -> tuple[UnsignedTransaction, tuple[int, int, int]]:
    items = _items(body, 12)
    chain_id, nonce, priority, fee = (_read_number(item) for item in items[:4])
    gas_limit, to, value, data = _read_tail(items[4:8])
    if items[8] != []:
        raise InvalidTransaction("access lists are not supported")
    y_parity, r, s = (_read_number(item) for item in items[9:])
    return UnsignedTransaction(2, chain_id, nonce, priority, fee, gas_limit, to, value, data), (y_parity, r, s)


def _decode_legacy(raw: bytes) -> tuple[UnsignedTransaction, tuple[int, int, int]]:
    items = _items(raw, 9)
    nonce, price = (_read_number(item) for item in items[:2])
    gas_limit, to, value, data = _read_tail(items[2:6])
    v, r, s = (_read_number(item) for item in items[6:])
    if v < 37:
        raise InvalidTransaction("only replay-protected (EIP-155) transactions allowed over RPC")
    chain_id, y_parity = divmod(v - 35, 2)
    return UnsignedTransaction(0, chain_id, nonce, price, price, gas_limit, to, value, data), (y_parity, r, s)


def _recover(digest: bytes, y_parity: int, r: int, s: int) -> str:
    signature = _word(r) + _word(s) + bytes([y_parity])
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=cast("Any", None))
    except Exception as error:  # coincurve raises a bare Exception when no key fits
        raise InvalidTransaction("the signature belongs to no key") from error
    return address_of_public_key(key.format(compressed=False))
