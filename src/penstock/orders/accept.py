"""From a decoded request to a draft: destination, quote, policy.

Nothing here waits for a node, but where a family's recipients have rules on the chain, and then not for long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from msgspec.structs import replace

from penstock.catalog import Catalog
from penstock.core.errors import Problem, Refused
from penstock.core.intent import Payment
from penstock.core.money import LEDGER_DECIMALS, CoinAmount, Inexact, Token, TokenAmount, parse_units, plain
from penstock.core.order import (
    HOUSE_MERCHANT,
    Order,
    OrderState,
    WireStatus,
    fingerprint,
    holder_of_account,
    holder_of_merchant,
    key_of,
)
from penstock.core.party import Account, Merchant
from penstock.core.seal import OrderSeal
from penstock.core.snowflake import moment_ms
from penstock.core.withdrawal import WithdrawRequest
from penstock.orders.board import Board, Quote
from penstock.orders.intake import Draft, Intake
from penstock.rails.base import Destination, InvalidDestination, MemoRequired, NodeUnreachable, OwnAddress, Rail, TooLittle

log = structlog.get_logger()


class Accounts(Protocol):
    """Internal accounts."""

    async def find(self, text: str) -> Account | None:
        """By numeric id or e-mail address."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's limits, per coin symbol, in plain decimal text; no entry means no limit."""

    minimum: Mapping[str, str] = field(default_factory=dict)
    maximum: Mapping[str, str] = field(default_factory=dict)
    deny_addresses: frozenset[str] = frozenset()
    withdrawals: bool = True


def _refusal(error: InvalidDestination | MemoRequired | TooLittle) -> Refused:
    """What a rail says of a destination, or of an amount for it, in the API's codes."""
    if isinstance(error, TooLittle):
        return Refused(Problem.VALUE_BELOW_LIMIT, f"value is too small, by what the recipient would get: {error}.")
    if isinstance(error, OwnAddress):
        return Refused(Problem.CANNOT_SELF, f"address is refused. {error}")
    if isinstance(error, InvalidDestination):
        return Refused(Problem.ADDRESS_FORMAT, f"address is refused. {error}")
    return Refused(Problem.ADDRESS_EMPTY_MEMO, f"memo is missing: {error}.")


def is_internal(address: str) -> bool:
    """Only ASCII digits, or a text with @, is always inside the house (spec 5.2)."""
    return "@" in address or (address.isascii() and address.isdigit())


def mark_of(request: WithdrawRequest) -> str:
    """By what a repeat of this request is known."""
    return fingerprint(
        address=request.address,
        token_id=request.token_id,
        value=plain(request.value, LEDGER_DECIMALS),
        memo=request.memo,
        merchant_pays_fee=request.merchant_pays_fee,
    )


class Accept:
    """Turns requests into drafts and hands them to the intake, each with its quote or its refusal."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        board: Board,
        accounts: Accounts,
        intake: Intake,
        policy: Policy,
        next_ids: Callable[[int], list[int]],
        seal: OrderSeal,
    ) -> None:
        self._catalog = catalog
        self._board = board
        self._accounts = accounts
        self._intake = intake
        self._policy = policy
        self._minimum = {symbol: parse_units(text, LEDGER_DECIMALS) for symbol, text in policy.minimum.items() if text}
        self._maximum = {symbol: parse_units(text, LEDGER_DECIMALS) for symbol, text in policy.maximum.items() if text}
        self._next_ids = next_ids
        self._seal = seal

    async def withdraw(self, merchant: Merchant, request: WithdrawRequest) -> Order:
        """The order of this id, new or as it was first accepted. Raises Refused."""
        return await self._submit(merchant.id, holder_of_merchant(merchant.id), request)

    async def withdraw_from_account(self, account: Account, request: WithdrawRequest) -> Order:
        """An internal account's way out: the same road, paid by the account. Raises Refused."""
        return await self._submit(HOUSE_MERCHANT, holder_of_account(account.id), request)

    async def fee(self, token: Token, address: str) -> CoinAmount:
        """What `/withdraw` would charge now; nothing inside the house. Raises Refused."""
        if address and is_internal(address):
            return CoinAmount.zero(token.coin)
        self._rail(token)
        return self._board.quote(token).fee

    async def _submit(self, merchant_id: int, payer: str, given: WithdrawRequest) -> Order:
        request = self._without_idle_memo(given)
        wish: Order | Refused
        once = ""
        try:
            wish, once = await self._wish(merchant_id, payer, request)
        except Refused as refusal:
            wish = refusal
        former = "" if request is given else mark_of(given)
        return await self._intake.submit(Draft(merchant_id, request.merchant_order_id, mark_of(request), wish, once, former))

    def _without_idle_memo(self, request: WithdrawRequest) -> WithdrawRequest:
        """A memo that its token does not take is no content: some clients send random digits with everything, new ones with a repeat (spec 5.5)."""
        token = self._catalog.token(request.token_id)
        return replace(request, memo="") if request.memo and token is not None and not token.takes_memo else request

    async def _wish(self, merchant_id: int, payer: str, request: WithdrawRequest) -> tuple[Order, str]:
        """The order that this request would be, and what it would use up for ever. Raises Refused."""
        token = self._token(request)
        if request.memo_is_number_zero and token.takes_memo:
            raise Refused(Problem.INVALID_ARGUMENT, 'memo is the number 0; send the text "0" for tag 0, or leave memo out for none.')
        if not self._policy.withdrawals:
            raise Refused(Problem.DISABLED_WITHDRAW, "Withdrawals are switched off by the operator; try again later.")
        value = self._value(token, request.value)
        if is_internal(request.address):
            return await self._internal(merchant_id, payer, request, token, value), ""
        return await self._outside(merchant_id, payer, request, token, value)

    def _token(self, request: WithdrawRequest) -> Token:
        token = self._catalog.token(request.token_id)
        coin = self._catalog.coin(request.token_id)
        if token is None and coin is not None and is_internal(request.address):
            token = next(iter(self._catalog.tokens_of(coin)), None)  # inside the house the coin alone says enough (spec 16.4)
        if token is None:
            raise Refused(Problem.INVALID_COIN, "token_id is not a token of this server; coin/all lists them all.")
        return token

    def _value(self, token: Token, units: int) -> CoinAmount:
        if units <= 0:
            raise Refused(Problem.INVALID_ARGUMENT, "value must be greater than zero.")
        symbol = token.coin.symbol
        if units < self._minimum.get(symbol, units):
            raise Refused(Problem.VALUE_BELOW_LIMIT, f"value is below the minimum of {self._policy.minimum[symbol]} {symbol}.")
        if units > self._maximum.get(symbol, units):
            raise Refused(Problem.VALUE_ABOVE_LIMIT, f"value is above the maximum of {self._policy.maximum[symbol]} {symbol}.")
        return CoinAmount(token.coin, units)

    async def _internal(self, merchant_id: int, payer: str, request: WithdrawRequest, token: Token, value: CoinAmount) -> Order:
        account = await self._accounts.find(request.address)
        if account is None:
            raise Refused(Problem.TO_USER_NOT_FOUND, "users do not exist")
        recipient = holder_of_account(account.id)
        if recipient == payer:
            raise Refused(Problem.CANNOT_SELF, "address is the paying account itself; name another one.")
        quote = Quote(CoinAmount.zero(token.coin), "0", self._board.rate_text(token.coin), "0", 0)
        return self._order(merchant_id, payer, request, token, value, quote, net=value, recipient=recipient, destination=Destination(""))

    async def _outside(self, merchant_id: int, payer: str, request: WithdrawRequest, token: Token, value: CoinAmount) -> tuple[Order, str]:
        rail = self._rail(token)
        destination = self._destination(rail, token, request)
        self._check_exact(token, value)
        quote = self._board.quote(token)
        if not request.merchant_pays_fee and value <= quote.fee:
            raise Refused(
                Problem.NOTHING_LEFT_AFTER_FEE,
                f"value {value} does not exceed the network fee of {quote.fee} {token.coin.symbol}; send more, or set merchant_pays_fee.",
            )
        net = value if request.merchant_pays_fee else value - quote.fee
        self._check_asked(token, destination, net)
        await self._look_up(rail, destination, token, net)
        order = self._order(merchant_id, payer, request, token, value, quote, net=net, recipient="", destination=destination)
        return order, destination.once

    def _check_exact(self, token: Token, value: CoinAmount) -> None:
        """The token can carry the value to the last digit (spec 16; architecture, section 4). Raises Refused."""
        try:
            whole = value.to_token(token).units % token.step == 0
            decimals = token.payout_decimals
        except Inexact:
            whole, decimals = False, token.payout_decimals
        if not whole:
            raise Refused(
                Problem.COIN_PRECISION_LIMIT,
                f"value has too many decimals; {token.coin.symbol} on {token.chain} takes at most {decimals}.",
            )

    def _check_asked(self, token: Token, destination: Destination, net: CoinAmount) -> None:
        """An invoice with an amount is paid exactly (spec 5.4). Raises Refused."""
        if destination.units is None:
            return
        asked = TokenAmount(token, destination.units).to_coin()
        if asked != net:
            raise Refused(
                Problem.INVALID_ARGUMENT,
                f"The invoice in address asks for {asked} {token.coin.symbol} and its recipient would get {net}; give an invoice over {net}.",
            )

    async def _look_up(self, rail: Rail, destination: Destination, token: Token, net: CoinAmount) -> None:
        """What the network and the recipient's own rules on it say (spec 16.5), if its nodes answer in time; else the order waits for the
        answer. Raises Refused.
        """
        try:
            await rail.look_up(destination, token, net.to_token(token).units)
        except (InvalidDestination, MemoRequired, TooLittle) as error:
            raise _refusal(error) from error
        except NodeUnreachable:
            log.info("accept.look_up.unanswered", chain=token.chain)

    def _rail(self, token: Token) -> Rail:
        rail = self._board.rail(token.chain)
        if rail is None or token.status == 2:
            raise Refused(Problem.CHAIN_STOP_WITHDRAW, f"Withdrawals of {token.coin.symbol} on {token.chain} are off at the moment.")
        return rail

    def _destination(self, rail: Rail, token: Token, request: WithdrawRequest) -> Destination:
        try:
            destination = rail.parse_destination(request.address, request.memo if token.takes_memo else "")
        except (InvalidDestination, MemoRequired) as error:
            raise _refusal(error) from error
        if {destination.address, destination.address.lower()} & self._policy.deny_addresses:
            raise Refused(Problem.ADDRESS_IN_BLACK_LIST, "address is on the operator's list of addresses that are not paid.")
        return destination

    def _order(
        self,
        merchant_id: int,
        payer: str,
        request: WithdrawRequest,
        token: Token,
        value: CoinAmount,
        quote: Quote,
        *,
        net: CoinAmount,
        recipient: str,
        destination: Destination,
    ) -> Order:
        order_id, record_id = self._next_ids(2)
        internal = recipient != ""
        memo, seal = destination.memo if token.takes_memo else "", ""
        if not internal:
            key = key_of(merchant_id, request.merchant_order_id)
            payment = Payment(order_id, destination.address, memo, net.to_token(token).units, key=key)
            seal = self._seal.of(payment, chain=token.chain, token_id=token.id)
        return Order(
            id=order_id,
            record_id=record_id,
            merchant_id=merchant_id,
            merchant_order_id=request.merchant_order_id,
            payer=payer,
            recipient=recipient,
            address=request.address,
            destination=destination.address,
            memo=memo,
            token_id=token.id,
            coin_id=token.coin.id,
            crypto=token.coin.symbol,
            chain=token.chain,
            contract=token.wire_contract,
            merchant_pays_fee=request.merchant_pays_fee,
            value=value.units,
            fee=quote.fee.units,
            net=net.units,
            reserve=0 if internal else (net + quote.fee).units,
            fee_usd=quote.fee_usd,
            token_rate=quote.token_rate,
            native_rate=quote.native_rate,
            gas_quoted=quote.gas_quoted,
            state=OrderState.SUCCEEDED if internal else OrderState.ACCEPTED,
            wire=WireStatus.SUCCESSFUL if internal else WireStatus.PENDING,
            hold_reason="",
            fail_reason="",
            txid="",
            decided_at_ms=moment_ms(order_id) if internal else None,
            seal=seal,
        )
