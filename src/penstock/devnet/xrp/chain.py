"""The XRP Ledger as all its nodes agree on it: an open ledger, closed ones that may still be undone, and validated ones that stay.

Everything follows from the spec, the seed, the times that the given clock shows, and what is submitted when. A ledger closes every
`block_ms` when somebody looks, with the time at which it was due, and is validated so many closes later (`validation_lag`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import coincurve
from coincurve.ecdsa import cdata_to_der, deserialize_compact
from xrpl.core import binarycodec

from penstock.devnet.box import Keep
from penstock.devnet.xrp.amounts import ISSUED_SCALE, Amount, with_transfer_fee
from penstock.devnet.xrp.engine import admit, apply
from penstock.devnet.xrp.ledgers import RIPPLE_EPOCH_S, Applied, Ledger, make, sealed
from penstock.devnet.xrp.lines import new_line, put
from penstock.devnet.xrp.preflight import NETWORK_ID_NAMED, RATE_MAX, preflight
from penstock.devnet.xrp.queue import BASE_FEE, Queue, Room, fee_at, level_of, open_level
from penstock.devnet.xrp.state import DEFAULT_RIPPLE, Account, Draft, Line, Side, State, TrustLine, View, line_between
from penstock.devnet.xrp.transactions import Transaction, address_of, half_sha512, read

FIRST: Final = 1_000
"""Index of the first ledger."""
CATCH_UP_MAX: Final = 10_000
"""Ledgers made at one look after a long silence; beyond, the network counts as having stood still."""
HISTORY: Final = 20_000
PRUNE_EVERY: Final = 1_000
TOTAL_DROPS: Final = 10**17
FAUCET_DROPS: Final = 99 * 10**15
FAUCET_TOKENS: Final = 9 * 10**9
"""Whole tokens: a balance that sixteen digits hold exactly to the sixth decimal."""
ISSUER_DROPS: Final = 10**9

Decree = Callable[[Draft], None]
"""What somebody does to the next ledger without a transaction, since the box has not his key."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token of the catalogue: currency code, issuer, and how many decimals its base units have."""

    currency: str
    issuer: str
    decimals: int

    @property
    def scale(self) -> int:
        """The ledger's units in one base unit."""
        return int(10 ** (ISSUED_SCALE - self.decimals))


@dataclass(frozen=True, slots=True)
class XrpSpec:
    """What a network is born with. `tokens` by the catalogue's contract text; `expected` transactions in a ledger, above which fees rise."""

    name: str
    network_id: int
    tokens: Mapping[str, Issued] = field(default_factory=dict)
    block_ms: int = 1_000
    expected: int = 1_000


class XrpChain:
    """The network."""

    def __init__(self, spec: XrpSpec, *, now_ms: Callable[[], int], seed: int = 0) -> None:
        self.spec = spec
        self.block_ms = spec.block_ms
        self.expected = spec.expected
        self.validation_lag = 1
        self.load = 1
        self._now_ms = now_ms
        self._key = coincurve.PrivateKey(hashlib.sha256(f"penstock devnet faucet {spec.name} {seed}".encode()).digest())
        self.faucet = address_of(self._key.public_key.format())
        self.state = State()
        self.ledgers: dict[int, Ledger] = {}
        self.queue = Queue()
        self._found: dict[str, Applied] = {}
        self._of_account: dict[str, list[str]] = {}
        self._open: dict[str, Transaction] = {}
        self._delayed: list[tuple[int, Transaction]] = []
        self._decrees: list[tuple[int | None, Decree]] = []
        self._spike = 1
        self._branch = 0
        self.first = self.closed = self.validated = FIRST
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        draft = Draft(self.state.at(FIRST))
        draft.accounts[self.faucet] = Account(FAUCET_DROPS, 1)
        for token in self.spec.tokens.values():
            draft.accounts[token.issuer] = Account(ISSUER_DROPS, 1, DEFAULT_RIPPLE)
            open_line(draft, self.faucet, token, held=FAUCET_TOKENS * 10**ISSUED_SCALE)
        self.state.write(FIRST, draft)
        now = self._now_ms()
        born = half_sha512(f"{self.spec.name} {seed}".encode()).hex().upper()
        at = now // 1000 - RIPPLE_EPOCH_S
        self.ledgers[FIRST] = Ledger(FIRST, born, "0" * 64, "0" * 64, born, TOTAL_DROPS, at, at, now, ())
        self._due_ms = now + self.block_ms
        self._draft = Draft(self.state.at(self.closed))

    # What has happened

    @property
    def now_ms(self) -> int:
        """The time of the clock that drives it."""
        return self._now_ms()

    @property
    def open_index(self) -> int:
        """The ledger that is being made."""
        return self.closed + 1

    @property
    def current(self) -> View:
        """The state as the open ledger has it."""
        return self._draft

    @property
    def open_count(self) -> int:
        """Transactions in the open ledger."""
        return len(self._open)

    @property
    def waiting(self) -> list[str]:
        """Ids of transactions that no closed ledger holds yet."""
        return [*self._open, *(one.txid for one in self.queue.every()), *(one.txid for _, one in self._delayed)]

    @property
    def open_level(self) -> int:
        """The fee level that gets a transaction into the open ledger now."""
        return open_level(len(self._open), self.expected) * self._spike

    @property
    def open_fee(self) -> int:
        """The same in drops."""
        return max(fee_at(self.open_level), self.minimum_fee)

    @property
    def minimum_fee(self) -> int:
        """Drops below which a node under load takes nothing at all."""
        return BASE_FEE * self.load

    def applied(self, txid: str) -> Applied | None:
        """A transaction in a closed ledger."""
        return self._found.get(txid)

    def opened(self, txid: str) -> Transaction | None:
        """A transaction in the open ledger."""
        return self._open.get(txid)

    def of_account(self, address: str) -> list[Applied]:
        """Transactions of closed ledgers that changed something of an account, oldest first."""
        return [self._found[txid] for txid in self._of_account.get(address, ())]

    # What one may do

    def submit(self, raw: bytes, *, delay_ms: int = 0, lose: bool = False) -> tuple[str, Transaction]:
        """Offer signed bytes: the preliminary code, and the transaction. They arrive `delay_ms` later, or never (`lose`). Raises Unreadable."""
        self.tick()
        transaction = read(raw)
        code = preflight(transaction, self.spec.network_id)
        if code != "tesSUCCESS":
            return code, transaction
        if lose or delay_ms:
            code = self._forecast(transaction)
            if delay_ms and not lose:
                self._delayed.append((self._now_ms() + delay_ms, transaction))
            return code, transaction
        code = self._offer(transaction)
        self._release()
        return code, transaction

    def tick(self) -> None:
        """Close the ledgers that are due by now."""
        now = self._now_ms()
        if self.block_ms:
            if now - self._due_ms > CATCH_UP_MAX * self.block_ms:
                self._due_ms = now
            while self._due_ms <= now:
                self._close(self._due_ms)
        self._arrive(now)

    def close(self, count: int = 1) -> int:
        """Close ledgers now; the newest closed one's index."""
        self.tick()
        for _ in range(count):
            self._close(self._now_ms())
        return self.closed

    def set_block_time(self, block_ms: int) -> None:
        """Another pace; 0 for only on demand."""
        self.tick()
        self.block_ms, self._due_ms = block_ms, self._now_ms() + block_ms

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Undo closed ledgers that are not validated yet, and close one more in their place. Raises ValueError for what is validated."""
        self.tick()
        limit = self.closed - self.validated
        if not 1 <= depth <= limit:
            raise ValueError(f"{limit} ledgers are closed and not validated, and nothing deeper is ever undone here (see `validation`)")
        orphans: list[Transaction] = []
        for _ in range(depth):
            orphans = self._undo() + orphans
        carried = [*([] if transactions == "drop" else orphans), *self._open.values()]
        self._branch += 1
        self._reopen(carried)
        for number in range(depth + 1):
            self._close(self._now_ms(), empty=transactions == "reorder" and number == 0)
        return self.closed

    def forget(self, txid: str) -> bool:
        """Drop a transaction that no closed ledger holds; whether there was one."""
        late = len(self._delayed)
        self._delayed = [entry for entry in self._delayed if entry[1].txid != txid]
        if self.queue.remove(txid) is not None:
            return True
        if self._open.pop(txid, None) is not None:
            self._restate(list(self._open.values()))
            return True
        return len(self._delayed) < late

    def spike(self, factor: int) -> None:
        """Multiply what the open ledger asks; it halves with every ledger. Raises ValueError."""
        if factor < 1:
            raise ValueError("a spike multiplies by 1 or more")
        self._spike = factor

    def decree(self, decree: Decree) -> None:
        """Change the next ledger without a transaction."""
        self.tick()
        decree(self._draft)
        self._decrees.append((None, decree))

    def pay(self, address: str, amount: Amount) -> str:
        """From the faucet, by a real transaction; its id. Whatever the issuer takes comes on top. Raises ValueError."""
        fields: dict[str, Any] = {"TransactionType": "Payment", "Destination": address, "Amount": amount.json()}
        if amount.currency:
            fields["SendMax"] = replace(amount, units=with_transfer_fee(amount.units, RATE_MAX)).json()
        return self.send(self._key, fields)

    def send(self, key: coincurve.PrivateKey, fields: Mapping[str, Any]) -> str:
        """Sign with a key of this box and submit; the id. Raises ValueError with the code of a refusal."""
        self.tick()
        public = key.public_key.format()
        sender = address_of(public)
        account = self._draft.account(sender)
        complete: dict[str, Any] = {
            **fields,
            "Account": sender,
            "Fee": str(2 * self.open_fee),
            "Sequence": self.queue.next_sequence(sender, account.sequence if account is not None else 0),
            "SigningPubKey": public.hex().upper(),
        }
        if self.spec.network_id > NETWORK_ID_NAMED:
            complete["NetworkID"] = self.spec.network_id
        digest = half_sha512(bytes.fromhex(binarycodec.encode_for_signing(complete)))
        complete["TxnSignature"] = der_signature(key, digest).hex().upper()
        code, transaction = self.submit(bytes.fromhex(binarycodec.encode(complete)))
        if code not in {"tesSUCCESS", "terQUEUED"}:
            raise ValueError(f"the ledger answers {code}")
        return transaction.txid

    # How it works

    def _forecast(self, transaction: Transaction) -> str:
        """What would be said of it now; nothing is kept."""
        if transaction.txid in self._open:
            return "tefALREADY"
        return apply(self._draft, transaction, self.open_index, open_fee_min=self.minimum_fee).code

    def _offer(self, transaction: Transaction) -> str:
        """Take it into the open ledger, the queue, or among those that come too early; or say why not."""
        if transaction.txid in self._open:
            return "tefALREADY"
        index = self.open_index
        code = admit(self._draft, transaction, index, open_fee_min=self.minimum_fee)
        room = Room(index, self._draft, self.expected)
        if code == "terPRE_SEQ" and self._follows_queue(transaction):
            if transaction.last_ledger is not None and transaction.last_ledger < index:
                return "tefMAX_LEDGER"
            return "telINSUF_FEE_P" if transaction.fee < self.minimum_fee else self.queue.offer(transaction, room)
        if code == "tesSUCCESS":
            if level_of(transaction.fee) < self.open_level:
                return self.queue.offer(transaction, room)
            code = self._enter(transaction)
        if code.startswith("ter"):
            self.queue.hold(transaction)
        return code

    def _follows_queue(self, transaction: Transaction) -> bool:
        account = self._draft.account(transaction.account)
        return account is not None and account.sequence < transaction.sequence <= self.queue.next_sequence(
            transaction.account, account.sequence
        )

    def _enter(self, transaction: Transaction) -> str:
        """Apply it in the open ledger; what was queued in its place is gone."""
        outcome = apply(self._draft, transaction, self.open_index, open_fee_min=self.minimum_fee)
        if outcome.applied:
            self._draft.take(outcome.changes)
            self._open[transaction.txid] = transaction
            rival = self.queue.waits_for(transaction)
            if rival is not None:
                self.queue.remove(rival.txid)
        return outcome.code

    def _release(self) -> None:
        """Offer what came too early and is due now, as long as that lets more of it in."""
        entered = True
        while entered and (due := self.queue.due(self._draft)):
            codes = [self._offer(transaction) for transaction in due]
            entered = any(code.startswith(("tes", "tec")) for code in codes)

    def _arrive(self, now_ms: int) -> None:
        """Offer what was delayed until now."""
        ready = [transaction for ready_ms, transaction in self._delayed if ready_ms <= now_ms]
        if ready:
            self._delayed = [entry for entry in self._delayed if entry[0] > now_ms]
            for transaction in ready:
                self._offer(transaction)
            self._release()

    def _close(self, at_ms: int, *, empty: bool = False) -> None:
        """Make the next ledger of what is open, and open another."""
        self._arrive(at_ms)
        draft, index, candidates = Draft(self.state.at(self.closed)), self.open_index, list(self._open.values())
        for _, decree in [entry for entry in self._decrees if entry[0] is None]:
            decree(draft)
        self._decrees = [(index if at is None else at, decree) for at, decree in self._decrees if at is None or at > self.validated]
        made = make(draft, [] if empty else candidates, index)
        self.ledgers[index] = sealed(self.ledgers[self.closed], draft, made, made_ms=at_ms, branch=self._branch)
        self.state.write(index, draft)
        for applied in made.applied:
            self._found[applied.transaction.txid] = applied
            for address in applied.accounts:
                self._of_account.setdefault(address, []).append(applied.transaction.txid)
        self.closed = index
        self.validated = max(self.validated, index - self.validation_lag)
        self._spike = max(1, self._spike // 2)
        self._due_ms = at_ms + self.block_ms
        self._prune()
        self._reopen(candidates if empty else made.left)

    def _reopen(self, first: Iterable[Transaction]) -> None:
        """A fresh open ledger: what was left over, then the queue while it pays enough, then what came too early."""
        self._restate(first)
        gone: list[str] = []
        for transaction in self.queue.best_first():
            code = admit(self._draft, transaction, self.open_index, open_fee_min=self.minimum_fee)
            if code == "tesSUCCESS" and level_of(transaction.fee) >= self.open_level:
                code = self._enter(transaction)
                gone += [] if code.startswith("ter") else [transaction.txid]
            elif not code.startswith(("ter", "tes", "telINSUF")):
                gone.append(transaction.txid)
        late = [one.txid for one in self.queue.every() if one.last_ledger is not None and one.last_ledger < self.open_index]
        self.queue.drop([*gone, *late])
        self._release()

    def _restate(self, transactions: Iterable[Transaction]) -> None:
        """Apply these anew upon the newest closed ledger; those that became too early are kept for later."""
        self._draft, self._open = Draft(self.state.at(self.closed)), {}
        for at, decree in self._decrees:
            if at is None:
                decree(self._draft)
        for transaction in transactions:
            outcome = apply(self._draft, transaction, self.open_index)
            if outcome.applied:
                self._draft.take(outcome.changes)
                self._open[transaction.txid] = transaction
            elif outcome.code.startswith("ter"):
                self.queue.hold(transaction)

    def _undo(self) -> list[Transaction]:
        """Take the newest closed ledger back; its transactions."""
        ledger = self.ledgers.pop(self.closed)
        for applied in reversed(ledger.applied):
            del self._found[applied.transaction.txid]
            for address in applied.accounts:
                self._of_account[address].pop()
        self.state.undo(self.closed)
        self._decrees = [(None if at is not None and at >= self.closed else at, decree) for at, decree in self._decrees]
        self.closed -= 1
        return [applied.transaction for applied in ledger.applied]

    def _prune(self) -> None:
        """Forget old ledgers, many at a time."""
        if self.closed - self.first < HISTORY + PRUNE_EVERY:
            return
        while self.first < self.closed - HISTORY:
            for applied in self.ledgers.pop(self.first).applied:
                del self._found[applied.transaction.txid]
                for address in applied.accounts:
                    self._of_account[address].pop(0)
            self.first += 1
        self.state.forget_before(self.first)


def open_line(draft: Draft, holder: str, token: Issued, *, held: int = 0) -> None:
    """Let an account hold a token, as its own transaction would have before."""
    key: Line = line_between(holder, token.issuer, token.currency)
    low = key[0] == holder
    line = draft.line(key) or new_line(draft, *key)
    limit = max(line.side(low=low).limit, FAUCET_TOKENS * 10**ISSUED_SCALE)
    side = Side(limit, authorized=line.side(low=low).authorized, freeze=line.side(low=low).freeze, reserve=line.side(low=low).reserve)
    line = line.with_side(side, low=low)
    put(draft, key, TrustLine(line.balance + (held if low else -held), line.low, line.high, line.previous))


def der_signature(key: coincurve.PrivateKey, digest: bytes) -> bytes:
    """A fully canonical signature."""
    compact = key.sign_recoverable(digest, hasher=None)[:64]
    return cdata_to_der(deserialize_compact(compact))
