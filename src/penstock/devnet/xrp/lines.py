"""Trust lines: who pays their reserve, when they vanish, and how much may flow over them.

https://xrpl.org/docs/references/protocol/ledger-data/ledger-entry-types/ripplestate
"""

from __future__ import annotations

from dataclasses import replace

from penstock.devnet.xrp.amounts import rounded
from penstock.devnet.xrp.state import DEFAULT_RIPPLE, GLOBAL_FREEZE, REQUIRE_AUTH, Draft, Line, Side, TrustLine, View, line_between


def new_line(view: View, one: str, other: str, currency: str) -> TrustLine:
    """A line that nobody has changed yet: on each side rippling is as the account has it by default."""
    low, high, _ = line_between(one, other, currency)
    return TrustLine(low=Side(no_ripple=not _ripples(view, low)), high=Side(no_ripple=not _ripples(view, high)))


def _ripples(view: View, address: str) -> bool:
    account = view.account(address)
    return account is not None and bool(account.flags & DEFAULT_RIPPLE)


def is_owned(view: View, key: Line, line: TrustLine, *, low: bool) -> bool:
    """Whether one side is not in its default state, so that its account pays the reserve."""
    side = line.side(low=low)
    unusual = side.no_ripple == _ripples(view, key[0] if low else key[1])
    return bool(side.limit) or line.held(low=low) > 0 or unusual or side.freeze


def put(draft: Draft, key: Line, line: TrustLine) -> None:
    """Write a line: owner counts follow, and a line that nobody needs is gone."""
    for low in (True, False):
        owned, side = is_owned(draft, key, line, low=low), line.side(low=low)
        if owned != side.reserve:
            line = line.with_side(replace(side, reserve=owned), low=low)
            address = key[0] if low else key[1]
            account = draft.account(address)
            if account is not None:
                count = account.owner_count + (1 if owned else -1)
                draft.accounts[address] = replace(account, owner_count=count)
    draft.lines[key] = line if line.low.reserve or line.high.reserve else None


def may_flow(view: View, source: str, target: str, currency: str, *, whole: bool) -> int:
    """How much of a currency can flow from one account to the other over their line, 0 where something forbids it.

    `whole`: this line is the whole way, so that freezes do not count. https://xrpl.org/docs/concepts/tokens/fungible-tokens/freezes
    """
    key = line_between(source, target, currency)
    line, paying, paid = view.line(key), view.account(source), view.account(target)
    if line is None or paying is None or paid is None:
        return 0
    low = key[0] == source
    held, theirs = line.held(low=low), line.side(low=not low)
    if not whole and (paid.flags & GLOBAL_FREEZE or theirs.freeze):
        return 0
    if paying.flags & REQUIRE_AUTH and not line.side(low=low).authorized and not held:
        return 0
    return max(0, held + theirs.limit)


def move(draft: Draft, source: str, target: str, currency: str, units: int) -> None:
    """Let units flow over a line that is there."""
    key = line_between(source, target, currency)
    line = draft.line(key) or TrustLine()
    change = -units if key[0] == source else units
    put(draft, key, replace(line, balance=rounded(line.balance + change)))
