"""What nodes of the XRP Ledger answer, bounded before it is believed. Every check raises BadAnswer for what the method cannot return.

https://xrpl.org/docs/references/http-websocket-apis/public-api-methods
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.rails.rpc import BadAnswer, Call, mapping
from penstock.rails.xrp.codec import DROPS_MAX, INDEX_MAX, NOBODYS, Issued
from penstock.rails.xrp.talk import NO_ACCOUNT, NO_TRANSACTION

LINES_MAX: Final = 400
"""Trust lines between two accounts that one answer may hold (the method's own limit)."""
RANGES_TEXT_MAX: Final = 10_000
RESERVE_MAX: Final = 1_000 * 10**6
"""Drops; the base reserve was 200 XRP once, and 1 XRP since December 2024."""

REQUIRE_TAG: Final = 0x00020000
REQUIRE_AUTHORISATION: Final = 0x00040000
DISALLOW_XRP: Final = 0x00080000
DISABLE_MASTER: Final = 0x00100000
GLOBAL_FREEZE: Final = 0x00400000
DEPOSIT_AUTHORISATION: Final = 0x01000000
"""lsf flags of an account. https://xrpl.org/docs/references/protocol/ledger-data/ledger-entry-types/accountroot#accountroot-flags"""

PSEUDO_FIELDS: Final = ("AMMID", "VaultID", "LoanBrokerID")
"""An account with one of these belongs to the ledger itself and takes no payments."""

PAR: Final = 10**9
"""A transfer rate or quality of one for one."""

_DROPS: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_DECIMAL: Final = re.compile(r"(-?)([0-9]{1,40})(?:\.([0-9]{1,40}))?(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII)
_RANGES: Final = re.compile(r"[0-9]{1,10}(?:-[0-9]{1,10})?(?:,[0-9]{1,10}(?:-[0-9]{1,10})?)*", re.ASCII)
_HASH: Final = re.compile(r"[0-9A-F]{64}", re.ASCII)
_RESULT: Final = re.compile(r"te[a-z][A-Z0-9_]{1,40}", re.ASCII)


def index(value: object) -> int:
    """A ledger index or a sequence."""
    if type(value) is not int or not 0 < value <= INDEX_MAX:
        raise BadAnswer("not a ledger index")
    return value


def word(value: object) -> int:
    """A whole number of 32 bits."""
    if type(value) is not int or not 0 <= value <= 2**32 - 1:
        raise BadAnswer("not a number of 32 bits")
    return value


def drops(value: object) -> int:
    """An amount of XRP, given as text or number."""
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or _DROPS.fullmatch(value) is None or int(value) > DROPS_MAX:
        raise BadAnswer("not an amount of drops")
    return int(value)


def hash256(value: object) -> str:
    """A hash, in upper case."""
    if not isinstance(value, str) or _HASH.fullmatch(value) is None:
        raise BadAnswer("not a hash")
    return value


def units_below(value: object, decimals: int, *, up: bool = False) -> int:
    """A decimal text as whole units of 10^-decimals, rounded down or up; nodes write very large and very small ones with an exponent."""
    match = _DECIMAL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise BadAnswer("not a decimal number")
    digits: int = int(match[2] + (match[3] or ""))
    shift = int(match[4] or 0) + decimals - len(match[3] or "")
    digits = -digits if match[1] else digits
    if not -200 <= shift <= 200:
        raise BadAnswer("a number that no ledger holds")
    if shift >= 0:
        return int(digits * 10**shift)
    part = int(10**-shift)
    return -(-digits // part) if up else digits // part


# Ledgers and fees


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest validated ledger of a node."""

    index: int
    hash: str


TIP_CALL: Final = Call("ledger", ({"ledger_index": "validated"},))
INFO_CALL: Final = Call("server_info", ({},))
FEE_CALL: Final = Call("fee", ({},))
STATE_CALL: Final = Call("server_state", ({"ledger_index": "current"},))
"""Clio hands it on to rippled with this parameter, which rippled ignores."""


def tip_of(answer: object) -> Tip:
    """Of `ledger`."""
    said = mapping(answer)
    if said.get("validated") is not True:
        raise BadAnswer("its newest ledger is not validated")
    return Tip(index(said.get("ledger_index")), hash256(said.get("ledger_hash")))


def ranges_of(answer: object) -> tuple[tuple[int, int], ...]:
    """First and last of each row of ledgers that a node keeps whole, of `server_info`; none where it has only begun."""
    said = mapping(mapping(answer).get("info")).get("complete_ledgers")
    if said == "empty":
        return ()
    if not isinstance(said, str) or len(said) > RANGES_TEXT_MAX or _RANGES.fullmatch(said) is None:
        raise BadAnswer("no ranges of ledgers")
    found = []
    for part in said.split(","):
        first, _, last = part.partition("-")
        found.append((int(first), int(last or first)))
    return tuple(found)


def open_fee_of(answer: object) -> int:
    """Drops of a transaction that is to go into the open ledger now, of `fee`."""
    said = mapping(mapping(answer).get("drops"))
    return max(drops(said.get(name)) for name in ("base_fee", "minimum_fee", "open_ledger_fee"))


@dataclass(frozen=True, slots=True)
class Reserves:
    """Drops that an account must keep, and for each thing it owns."""

    base: int
    each: int

    def of(self, owned: int) -> int:
        """What an account that owns so many things must keep."""
        return self.base + self.each * owned


def reserves_of(answer: object) -> Reserves:
    """Of `server_state`, as the newest validated ledger has them."""
    state = mapping(mapping(answer).get("state"))
    if state.get("amendment_blocked"):
        raise BadAnswer("it is amendment blocked and no longer knows the network's rules")
    said = mapping(state.get("validated_ledger"))
    found = Reserves(drops(said.get("reserve_base")), drops(said.get("reserve_inc")))
    if not 0 < found.base <= RESERVE_MAX or found.each > RESERVE_MAX:
        raise BadAnswer("reserves that no account could keep")
    return found


# Accounts


@dataclass(frozen=True, slots=True)
class Account:
    """An account at the end of a validated ledger."""

    address: str
    ledger: int
    drops: int
    sequence: int
    owned: int
    flags: int
    is_pseudo: bool
    is_lost: bool
    transfer_rate: int


def account_call(address: str, ledger: int | str = "validated") -> Call:
    """Asks for one account."""
    return Call("account_info", ({"account": address, "ledger_index": ledger},))


def account_of(address: str, answer: object) -> Account | None:
    """Of `account_info`; None where the ledger has no such account."""
    said = mapping(answer)
    if said.get("error") == NO_ACCOUNT:
        return None
    _validated(said)
    data = mapping(said.get("account_data"))
    if data.get("Account") != address:
        raise BadAnswer("another account than asked for")
    flags = word(data.get("Flags"))
    return Account(
        address=address,
        ledger=index(said.get("ledger_index")),
        drops=drops(data.get("Balance")),
        sequence=index(data.get("Sequence")),
        owned=word(data.get("OwnerCount")),
        flags=flags,
        is_pseudo=any(name in data for name in PSEUDO_FIELDS),
        is_lost=bool(flags & DISABLE_MASTER) and data.get("RegularKey") in NOBODYS,
        transfer_rate=word(data.get("TransferRate", 0)),
    )


def _validated(said: Mapping[str, Any]) -> None:
    if said.get("validated") is not True:
        raise BadAnswer("an answer from a ledger that is not validated")


@dataclass(frozen=True, slots=True)
class Line:
    """A trust line as its holder sees it: units of the token held (rounded down, and up), and at most to be held."""

    units: int
    units_up: int
    units_max: int
    authorised: bool
    frozen: bool
    no_ripple_by_issuer: bool
    at_par: bool


def line_call(holder: str, token: Issued, ledger: int | str = "validated") -> Call:
    """Asks for the trust lines between a holder and an issuer."""
    return Call("account_lines", ({"account": holder, "peer": token.issuer, "ledger_index": ledger, "limit": LINES_MAX},))


def line_of(holder: str, token: Issued, decimals: int, answer: object) -> Line | None:
    """Of `account_lines`; None where the holder has no line of this currency to its issuer."""
    said = mapping(answer)
    if said.get("error") == NO_ACCOUNT:
        return None
    _validated(said)
    lines = said.get("lines")
    if said.get("account") != holder or not isinstance(lines, list) or len(lines) > LINES_MAX:
        raise BadAnswer("no trust lines of this account")
    ours = [line for line in map(mapping, lines) if (line.get("account"), line.get("currency")) == (token.issuer, token.currency)]
    if not ours:
        if "marker" in said:
            raise BadAnswer("more trust lines than one answer holds")
        return None
    line = ours[0]
    return Line(
        units=units_below(line.get("balance"), decimals),
        units_up=units_below(line.get("balance"), decimals, up=True),
        units_max=units_below(line.get("limit"), decimals),
        authorised=line.get("peer_authorized") is True,
        frozen=any(line.get(name) not in (None, False) for name in ("freeze", "freeze_peer", "deep_freeze", "deep_freeze_peer")),
        no_ripple_by_issuer=line.get("no_ripple_peer") is True,
        at_par=word(line.get("quality_in", 0)) in (0, PAR) and word(line.get("quality_out", 0)) in (0, PAR),
    )


def deposit_call(sender: str, recipient: str) -> Call:
    """Asks whether one account may pay another."""
    asked = {"source_account": sender, "destination_account": recipient, "ledger_index": "validated"}
    return Call("deposit_authorized", (asked,))


def deposit_of(answer: object) -> bool:
    """Of `deposit_authorized`."""
    said = mapping(answer).get("deposit_authorized")
    if type(said) is not bool:
        raise BadAnswer("neither authorised nor not")
    return said


# Transactions


@dataclass(frozen=True, slots=True)
class Missing:
    """A node knows no such transaction; `searched`: it says itself that it has searched every ledger of the range that was asked for."""

    searched: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A node has the transaction, and no validated ledger does."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A transaction in a validated ledger: its result code, and the amount that it delivered in the ledger's JSON form."""

    ledger: int
    result: str
    delivered: Any


def transaction_call(txid: str, first: int, last: int) -> Call:
    """Asks for one transaction, and whether these ledgers (at most 1,000) were all searched."""
    return Call("tx", ({"transaction": txid, "binary": False, "min_ledger": first, "max_ledger": last},))


def transaction_of(txid: str, answer: object) -> Missing | Waiting | Validated:
    """Of `tx`, mapped whole. https://xrpl.org/docs/references/http-websocket-apis/public-api-methods/transaction-methods/tx"""
    said = mapping(answer)
    if said.get("error") == NO_TRANSACTION:
        return Missing(said.get("searched_all") is True)
    if hash256(said.get("hash")) != txid:
        raise BadAnswer("another transaction than asked for")
    if said.get("validated") is not True:
        return Waiting()
    meta = mapping(said.get("meta"))
    result = meta.get("TransactionResult")
    if not isinstance(result, str) or _RESULT.fullmatch(result) is None or not result.startswith(("tes", "tec")):
        raise BadAnswer("a result that no validated ledger holds")
    return Validated(index(said.get("ledger_index")), result, meta.get("delivered_amount"))


def result_of(answer: object) -> tuple[str, str]:
    """The engine's result code and the transaction's id, of `submit`; "" where it names none."""
    said = mapping(answer)
    result = said.get("engine_result")
    named = said.get("tx_json")
    txid = named.get("hash") if isinstance(named, dict) else None
    if not isinstance(result, str) or _RESULT.fullmatch(result) is None:
        raise BadAnswer("not a result code")
    return result, hash256(txid) if txid is not None else ""
