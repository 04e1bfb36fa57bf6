"""The XRP Ledger as all its nodes agree on it: an open ledger, a closed one that may still be undone, and validated ones that stay.

Driven by the clock it is given: a ledger closes every `block_ms`, and is validated when the next one closes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import coincurve
from coincurve.ecdsa import cdata_to_der, deserialize_compact
from xrpl.core import addresscodec, binarycodec

from penstock.devnet.box import Keep
from penstock.devnet.xrp.engine import Amount, Engine, Malformed
from penstock.devnet.xrp.state import DEFAULT_RIPPLE, IOU_SCALE, Account, Draft, Line, State, TrustLine
from penstock.devnet.xrp.transactions import BASE_FEE, Transaction, half_sha512, read

FIRST: Final = 1_000
"""Index of the first ledger."""
CATCH_UP_MAX: Final = 10_000
FAUCET_DROPS: Final = 99 * 10**15
TOKEN_UNITS: Final = 10**12 * 10**IOU_SCALE
RIPPLE_EPOCH_MS: Final = 946_684_800_000
"""2000-01-01. https://xrpl.org/docs/references/protocol/data-types/basic-data-types#specifying-time"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token of the catalogue: currency code, issuer, and how many decimals its base units have."""

    currency: str
    issuer: str
    decimals: int

    @property
    def scale(self) -> int:
        """10^-15 units in one base unit."""
        return int(10 ** (IOU_SCALE - self.decimals))


@dataclass(frozen=True, slots=True)
class XrpSpec:
    """What a network is born with. `tokens` by the catalogue's contract text."""

    name: str
    network_id: int
    tokens: Mapping[str, Issued] = field(default_factory=dict)
    block_ms: int = 1_000


@dataclass(frozen=True, slots=True)
class Applied:
    """A transaction in a ledger."""

    transaction: Transaction
    index: int
    place: int
    code: str
    delivered: Amount | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """A closed ledger. Its hash is a running one over what it holds, not that of a tree."""

    index: int
    hash: str
    parent: str
    closed_ms: int
    applied: tuple[Applied, ...]


@dataclass(slots=True)
class Waiting:
    """A transaction in the open ledger or in the queue."""

    transaction: Transaction
    ready_ms: int


class XrpChain:
    """The network."""

    def __init__(self, spec: XrpSpec, *, now_ms: Callable[[], int], seed: int = 0) -> None:
        self.spec = spec
        self.block_ms = spec.block_ms
        self._now_ms = now_ms
        self._key = coincurve.PrivateKey(hashlib.sha256(f"penstock devnet faucet {spec.name} {seed}".encode()).digest())
        self.faucet = address_of(self._key.public_key.format())
        self.state = State()
        self.ledgers: dict[int, Ledger] = {}
        self._found: dict[str, Applied] = {}
        self._waiting: dict[str, Waiting] = {}
        self._opened: set[Line] = set()
        self._spike = 1
        self._branch = 0
        self.closed = FIRST
        self.validated = FIRST
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        draft = Draft(self.state, FIRST)
        draft.accounts[self.faucet] = Account(FAUCET_DROPS, 1)
        for token in self.spec.tokens.values():
            draft.accounts[token.issuer] = Account(10**9, 1, DEFAULT_RIPPLE)
            draft.lines[self.faucet, token.issuer, token.currency] = TrustLine(TOKEN_UNITS, TOKEN_UNITS * 10)
        draft.keep()
        now = self._now_ms()
        parent = half_sha512(f"{self.spec.name} {seed}".encode()).hex().upper()
        self.ledgers[FIRST] = Ledger(FIRST, parent, "0" * 64, now, ())
        self._due_ms = now + self.block_ms

    # What has happened

    @property
    def open_index(self) -> int:
        """The ledger that is being made."""
        return self.closed + 1

    def applied(self, txid: str) -> Applied | None:
        """A transaction in a closed ledger."""
        return self._found.get(txid)

    def waiting(self, txid: str) -> Transaction | None:
        """A transaction that waits."""
        found = self._waiting.get(txid)
        return found.transaction if found is not None else None

    def waiting_of(self, account: str) -> list[Transaction]:
        """What an account has waiting, lowest sequence first."""
        return sorted((w.transaction for w in self._waiting.values() if w.transaction.account == account), key=lambda t: t.sequence)

    @property
    def waiting_count(self) -> int:
        """How many transactions wait."""
        return len(self._waiting)

    @property
    def open_fee(self) -> int:
        """Drops that get a transaction into the open ledger now."""
        return BASE_FEE * self._spike

    # What one may do

    def submit(self, raw: bytes, *, delay_ms: int = 0) -> tuple[str, Transaction | None]:
        """Offer signed bytes; the preliminary code and, where they could be read, the transaction."""
        self.tick()
        try:
            transaction = read(raw, self.spec.network_id)
        except Malformed as problem:
            return str(problem), None
        code = self._judge(transaction)
        if code.startswith(("tes", "tec", "ter")):
            self._waiting[transaction.txid] = Waiting(transaction, self._now_ms() + delay_ms)
        return code, transaction

    def _judge(self, transaction: Transaction) -> str:
        """What a node says before any ledger holds it."""
        account = self.state.accounts.at(transaction.account, self.closed)
        if transaction.txid in self._found:
            return "tefALREADY"
        if transaction.last_ledger is not None and transaction.last_ledger < self.open_index:
            return "tefMAX_LEDGER"
        if transaction.fee < BASE_FEE:
            return "telINSUF_FEE_P"
        if account is None:
            return "terNO_ACCOUNT"
        ahead = [t for t in self.waiting_of(transaction.account) if t.ticket is None]
        if transaction.ticket is not None:
            return "tesSUCCESS" if transaction.ticket in account.tickets else "tefNO_TICKET"
        if transaction.sequence < account.sequence:
            return "tefPAST_SEQ"
        rival = next((t for t in ahead if t.sequence == transaction.sequence and t.txid != transaction.txid), None)
        if rival is not None:
            if transaction.fee * 4 < rival.fee * 5:
                return "telCAN_NOT_QUEUE_FEE"
            del self._waiting[rival.txid]
        if transaction.sequence > account.sequence + len([t for t in ahead if t.sequence < transaction.sequence]):
            return "terPRE_SEQ"
        return "tesSUCCESS" if transaction.fee >= self.open_fee else "terQUEUED"

    def tick(self) -> None:
        """Close the ledgers that are due by now."""
        if not self.block_ms:
            return
        now = self._now_ms()
        if now - self._due_ms > CATCH_UP_MAX * self.block_ms:
            self._due_ms = now
        while self._due_ms <= now:
            self._close(self._due_ms)

    def close(self, count: int = 1) -> int:
        """Close ledgers now."""
        self.tick()
        for _ in range(count):
            self._close(self._now_ms())
        return self.closed

    def set_block_time(self, block_ms: int) -> None:
        """Another pace; 0 for only on demand."""
        self.tick()
        self.block_ms, self._due_ms = block_ms, self._now_ms() + block_ms

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Undo closed ledgers that are not validated yet, and close others in their place. Raises ValueError for what is validated."""
        self.tick()
        if not 1 <= depth <= self.closed - self.validated:
            raise ValueError(f"{self.closed - self.validated} ledgers are closed and not validated: nothing deeper is ever undone here")
        for index in range(self.closed, self.closed - depth, -1):
            for applied in self.ledgers.pop(index).applied:
                del self._found[applied.transaction.txid]
                if transactions != "drop":
                    self._waiting[applied.transaction.txid] = Waiting(applied.transaction, 0)
            self.state.undo(index)
        self.closed -= depth
        self._branch += 1
        for number in range(depth + 1):
            self._close(self._now_ms(), empty=transactions == "reorder" and number == 0)
        return self.closed

    def forget(self, txid: str) -> bool:
        """Drop a transaction that waits."""
        return self._waiting.pop(txid, None) is not None

    def spike(self, factor: int) -> None:
        """Multiply what the open ledger asks; it halves with every ledger."""
        if factor < 1:
            raise ValueError("a spike multiplies by 1 or more")
        self._spike = factor

    def pay(self, address: str, amount: Amount) -> str:
        """From the faucet, by a real transaction; its id. Raises ValueError."""
        fields: dict[str, Any] = {"TransactionType": "Payment", "Destination": address, "Amount": amount.json()}
        if amount.currency:
            self._opened.add((address, amount.issuer, amount.currency))
        return self.send(self._key, fields)

    def send(self, key: coincurve.PrivateKey, fields: Mapping[str, Any]) -> str:
        """Sign with a key of this box and submit; the id. Raises ValueError with the code of a refusal."""
        public = key.public_key.format()
        sender = address_of(public)
        account = self.state.accounts.at(sender, self.closed)
        ahead = len(self.waiting_of(sender))
        complete: dict[str, Any] = {
            **fields,
            "Account": sender,
            "Fee": str(max(12, 2 * self.open_fee)),
            "Sequence": (account.sequence if account is not None else 0) + ahead,
            "SigningPubKey": public.hex().upper(),
        }
        if self.spec.network_id > 1024:
            complete["NetworkID"] = self.spec.network_id
        digest = half_sha512(bytes.fromhex(binarycodec.encode_for_signing(complete)))
        complete["TxnSignature"] = der_signature(key, digest).hex().upper()
        code, transaction = self.submit(bytes.fromhex(binarycodec.encode(complete)))
        if transaction is None or not code.startswith(("tes", "ter")):
            raise ValueError(f"the ledger answers {code}")
        return transaction.txid

    # How it works

    def _close(self, at_ms: int, *, empty: bool = False) -> None:
        self.validated = self.closed
        index = self.closed + 1
        draft, applied = Draft(self.state, index), list[Applied]()
        for transaction in [] if empty else self._ready(at_ms):
            engine = Engine(draft, transaction.fields, opened=self._opened)
            code = self._apply(engine, draft, transaction, index)
            if code.startswith(("tes", "tec")):
                applied.append(Applied(transaction, index, len(applied), code, engine.delivered))
                del self._waiting[transaction.txid]
        draft.keep()
        for waiting in list(self._waiting.values()):
            last = waiting.transaction.last_ledger
            account = self.state.accounts.at(waiting.transaction.account, index)
            used = account is not None and waiting.transaction.ticket is None and waiting.transaction.sequence < account.sequence
            if used or (last is not None and last <= index):
                del self._waiting[waiting.transaction.txid]
        parent = self.ledgers[self.closed].hash
        content = "".join(a.transaction.txid + a.code for a in applied)
        hash_ = half_sha512(f"{index} {parent} {self._branch} {content}".encode()).hex().upper()
        self.ledgers[index] = Ledger(index, hash_, parent, at_ms, tuple(applied))
        self._found.update({a.transaction.txid: a for a in applied})
        self.closed = index
        self._spike = max(1, self._spike // 2)
        self._due_ms = at_ms + self.block_ms

    def _ready(self, at_ms: int) -> list[Transaction]:
        """What may be in the next ledger: enough fee, arrived, each account's by sequence."""
        ready = [w.transaction for w in self._waiting.values() if w.ready_ms <= at_ms and w.transaction.fee >= self.open_fee]
        return sorted(ready, key=lambda t: (t.sequence, t.txid))

    @staticmethod
    def _apply(engine: Engine, draft: Draft, transaction: Transaction, index: int) -> str:
        account = draft.account(transaction.account)
        if transaction.last_ledger is not None and transaction.last_ledger < index:
            return "tefMAX_LEDGER"
        if account is None:
            return "terNO_ACCOUNT"
        if transaction.ticket is not None:
            return engine.apply() if transaction.ticket in account.tickets else "tefNO_TICKET"
        if transaction.sequence != account.sequence:
            return "terPRE_SEQ" if transaction.sequence > account.sequence else "tefPAST_SEQ"
        return engine.apply()


def address_of(public_key: bytes) -> str:
    """The account of a key."""
    return addresscodec.encode_classic_address(hashlib.new("ripemd160", hashlib.sha256(public_key).digest()).digest())


def der_signature(key: coincurve.PrivateKey, digest: bytes) -> bytes:
    """A fully canonical signature."""
    compact = key.sign_recoverable(digest, hasher=None)[:64]
    return cdata_to_der(deserialize_compact(compact))
