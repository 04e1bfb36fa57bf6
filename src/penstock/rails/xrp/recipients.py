"""What recipients on the XRP Ledger demand, looked at before anything is signed: whatever is not certain is not paid.

Tag, deposit authorisation, reserve of a new account, trust line and what its issuer forbids, accounts that nobody can open.
https://xrpl.org/docs/concepts/accounts https://xrpl.org/docs/concepts/tokens/fungible-tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.core.intent import Payment
from penstock.core.latest import Latest
from penstock.core.money import Token, plain
from penstock.rails.base import Destination, InvalidDestination, MemoRequired, Unpayable
from penstock.rails.rpc import Nodes
from penstock.rails.xrp import answers
from penstock.rails.xrp.answers import PAR, Account, Line, account_call, account_of, deposit_call, deposit_of, line_call, line_of
from penstock.rails.xrp.codec import ISSUED_DECIMALS, ISSUED_UNITS_MAX, Issued, parse_contract
from penstock.runtime import Runtime

REMEMBERED_S: Final = 10.0
REMEMBERED_MAX: Final = 10_000
XRP_DECIMALS: Final = 6


@dataclass(frozen=True, slots=True)
class Side:
    """What the ledger says of one account that a payment touches; `consents`: it takes deposits from us."""

    account: Account | None
    line: Line | None = None
    consents: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """A payment's recipients, and where it is of a token, its issuer and our own line to that."""

    recipients: dict[str, Side]
    issuer: Account | None = None
    ours: Line | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a recipient cannot be paid."""

    text: str
    needs_tag: bool = False


class Recipients:
    """Looks at recipients of one network."""

    def __init__(self, nodes: Nodes, runtime: Runtime, *, sender: str) -> None:
        self._nodes = nodes
        self._runtime = runtime
        self._sender = sender
        self._known: Latest[tuple[str, str], tuple[float, Scene]] = Latest(REMEMBERED_MAX)

    async def look_up(self, destination: Destination, token: Token) -> bool:
        """While an order is accepted, from memory where that is fresh: whether the account exists. Raises InvalidDestination, MemoRequired
        or NodeUnreachable.
        """
        key, now = (destination.address, token.id), self._runtime.monotonic()
        known = self._known.get(key)
        if known is None or now - known[0] > REMEMBERED_S:
            known = now, await self._look([destination.address], token, self._sender)
            self._known.pop(key, None)
            self._known[key] = known
        problem = problem_of(known[1], destination.address, token, memo=destination.memo)
        if problem is not None and problem.needs_tag:
            raise MemoRequired(problem.text)
        if problem is not None:
            raise InvalidDestination(f"The address cannot be paid: {problem.text}.")
        return known[1].recipients[destination.address].account is not None

    async def problems(self, payments: Sequence[Payment], token: Token, sender: str, *, base_reserve: int) -> list[Unpayable | None]:
        """Before payments of a hot address are bound, in order; `base_reserve` in drops. Raises NodeUnreachable."""
        if not payments:
            return []
        if (wrong := unusable(token)) is not None:
            return [wrong] * len(payments)
        scene = await self._look(sorted({payment.recipient for payment in payments}), token, sender)
        found = []
        for payment in payments:
            problem = (
                problem_of(scene, payment.recipient, token, memo=payment.memo)
                or _of_house(scene, payment.recipient, token)
                or _of_amount(scene, payment, token, base_reserve)
            )
            found.append(Unpayable(problem.text) if problem is not None else None)
        return found

    async def _look(self, addresses: Sequence[str], token: Token, sender: str) -> Scene:
        """All from one node: accounts and lines first, then consent where it is needed."""
        issued = None if token.contract is None else parse_contract(token.contract)
        calls = [account_call(address) for address in addresses]
        checks: list[Callable[[object], object]] = [_account_check(address) for address in addresses]
        if issued is not None:
            holders = [*addresses, sender]
            calls += [account_call(issued.issuer), *(line_call(holder, issued) for holder in holders)]
            checks += [_account_check(issued.issuer), *(_line_check(holder, issued) for holder in holders)]
        found = await self._nodes.read_many(calls, checks)
        accounts: dict[str, Account | None] = dict(zip(addresses, found, strict=False))
        guarded = [a for a, account in accounts.items() if account is not None and account.flags & answers.DEPOSIT_AUTHORISATION]
        asked = [deposit_call(sender, address) for address in guarded]
        consents = await self._nodes.read_many(asked, [deposit_of] * len(asked)) if asked else []
        consent = dict(zip(guarded, consents, strict=True))
        if issued is None:
            return Scene({a: Side(accounts[a], consents=consent.get(a, True)) for a in addresses})
        issuer, *lines, ours = found[len(addresses) :]
        sides = {a: Side(accounts[a], line, consent.get(a, True)) for a, line in zip(addresses, lines, strict=True)}
        return Scene(sides, issuer, ours)


def _account_check(address: str) -> Callable[[object], Account | None]:
    return lambda answer: account_of(address, answer)


def _line_check(holder: str, token: Issued) -> Callable[[object], Line | None]:
    return lambda answer: line_of(holder, token, ISSUED_DECIMALS, answer)


def unusable(token: Token) -> Unpayable | None:
    """Whether the catalogue speaks of a token as this family holds it."""
    wanted = XRP_DECIMALS if token.contract is None else ISSUED_DECIMALS
    if token.decimals == wanted:
        return None
    return Unpayable(f"the catalogue gives {token.coin.symbol} {token.decimals} decimals, and on the XRP Ledger it has {wanted} here")


def problem_of(scene: Scene, address: str, token: Token, *, memo: str) -> Problem | None:
    """Why a recipient cannot be paid at all, whatever the amount. Pure."""
    side = scene.recipients[address]
    account = side.account
    if account is None:
        return None if token.is_native else Problem("the account does not exist yet and cannot hold tokens")
    if account.is_pseudo:
        return Problem("it belongs to the ledger itself (a pool or a vault), which takes no payments")
    if account.is_lost:
        return Problem("nobody has a key to it any more")
    if account.flags & answers.REQUIRE_TAG and not memo:
        return Problem("the destination demands a tag; give it as memo", needs_tag=True)
    if not side.consents:
        return Problem("it takes deposits only from accounts that it has authorised")
    if token.is_native:
        return Problem("its owner has said that it wants no XRP") if account.flags & answers.DISALLOW_XRP else None
    if side.line is None:
        return Problem("it has no trust line to the token's issuer")
    if side.line.frozen:
        return Problem("its trust line to the token's issuer is frozen")
    if not side.line.at_par:
        return Problem("it does not take the token at par")
    if scene.issuer is not None and scene.issuer.flags & answers.REQUIRE_AUTHORISATION and not side.line.authorised:
        return Problem("the token's issuer has not authorised it")
    return None


def _of_house(scene: Scene, address: str, token: Token) -> Problem | None:
    """What keeps us from paying this token to anybody, or to this recipient; none of it is the recipient's fault."""
    if token.is_native:
        return None
    issuer, ours, theirs = scene.issuer, scene.ours, scene.recipients[address].line
    if issuer is None:
        return Problem("the token's issuer does not exist on this network")
    if issuer.flags & answers.GLOBAL_FREEZE:
        return Problem("the token's issuer has frozen it everywhere")
    if issuer.transfer_rate not in (0, PAR):
        return Problem("the token's issuer takes a fee of each transfer, so what leaves is not what arrives")
    if ours is None:
        return Problem("the hot address has no trust line to the token's issuer")
    if ours.frozen or not ours.at_par:
        return Problem("the hot address's own trust line is frozen or not at par")
    if issuer.flags & answers.REQUIRE_AUTHORISATION and not ours.authorised:
        return Problem("the token's issuer has not authorised the hot address")
    if theirs is None or (ours.no_ripple_by_issuer and theirs.no_ripple_by_issuer):
        return Problem("the token's issuer does not let it pass from one holder to another (No Ripple)")
    return None


def makes_no_account(base_reserve: int) -> str:
    """What is said of less than that many drops to an account that is not there. https://xrpl.org/docs/concepts/accounts/reserves"""
    return f"the account does not exist yet, and its first payment must be at least {plain(base_reserve, XRP_DECIMALS)} XRP"


def _of_amount(scene: Scene, payment: Payment, token: Token, base_reserve: int) -> Problem | None:
    side = scene.recipients[payment.recipient]
    if token.is_native:
        if side.account is None and payment.units < base_reserve:
            return Problem(makes_no_account(base_reserve))
        return None
    if payment.units > ISSUED_UNITS_MAX:
        return Problem("the ledger holds no such amount exactly")
    if side.line is None or side.line.units_up + payment.units > side.line.units_max:
        return Problem("it would hold more of the token than its trust line allows")
    return None
