"""The smaller calls: who exists, what is there, what it costs (spec 4.4 to 4.9, 4.12, 4.13)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from penstock.core.errors import Problem, Refused
from penstock.core.latest import Latest
from penstock.core.money import LEDGER_DECIMALS, Coin, CoinAmount, Token, plain
from penstock.core.order import holder_of_merchant
from penstock.http.fields import ADDRESS, ID_CHARACTERS_MAX, TOKEN_ID, Call, Text, amount, choice, refuse, seconds
from penstock.http.ports import Ports

RATE_DECIMALS: Final = 16
"""Of `value` in token/rate, whatever the coin's precision (spec 4.7)."""

RESEND_SPAN_S_MAX: Final = 3600
REPLAY_S: Final = 240
TRANSACTION_TYPES: Final = ("All Type", "Direct Deposit", "API Deposit", "Invoice", "API Withdrawal", "Refund")
WEBHOOK_RESULTS: Final = ("Failed", "All Result")

_C_ID: Final = Text("c_id", ID_CHARACTERS_MAX, "give the digits of an internal account's id", numbers=True)
_COIN_ID: Final = Text("coin_id", ID_CHARACTERS_MAX, "give a coin id from /coin/all, or leave it out for all balances")
_AMOUNT: Final = 'give the US dollars as a plain decimal string such as "1000"'
_START: Final = "give the first second of the span, such as 1700000000"
_END: Final = "give the second after the span, or leave it out for one hour"

Data = dict[str, Any]


async def check_user(call: Call) -> Data:
    """Whether an internal account exists. Both spellings of the nickname are read by someone (spec 4.4)."""
    c_id = _C_ID.need(call.body)
    account = await call.ports.accounts.find(c_id) if c_id.isascii() and c_id.isdigit() else None
    if account is None:
        raise Refused(Problem.TO_USER_NOT_FOUND, "users do not exist")
    nickname = masked(account.nickname)
    return {"c_id": str(account.id), "nickname": nickname, "nikename": nickname}


def masked(nickname: str) -> str:
    """Enough to recognise somebody, not enough to name them: the first character, and the last of a longer name."""
    return f"{nickname[:1]}***{nickname[-1:] if len(nickname) > 3 else ''}"


async def assets(call: Call) -> Data:
    """Available balances: of one coin, or of every coin that the merchant ever had."""
    any_id = _COIN_ID.read(call.body) or TOKEN_ID.read(call.body)
    wanted = None if any_id is None else _coin(call.ports, any_id)
    balances = await call.ports.balances.of(holder_of_merchant(call.merchant.id))
    if wanted is not None:
        return {"list": [_asset(call.ports, balances.get(wanted.id) or CoinAmount.zero(wanted))]}
    places = {coin.id: place for place, coin in enumerate(call.ports.catalogue.coins())}
    in_order = sorted(balances.values(), key=lambda balance: (places.get(balance.coin.id, len(places)), balance.coin.id))
    return {"list": [_asset(call.ports, balance) for balance in in_order]}


def _asset(ports: Ports, balance: CoinAmount) -> Data:
    coin = balance.coin
    return {
        "coin_id": coin.id,
        "token_id": coin.id,
        "crypto": coin.symbol,
        "name": coin.name,
        "value": str(balance),
        "price": ports.prices.rate_text(coin),
        "logo": coin.logo,
    }


async def network_fee(call: Call) -> Data:
    """What a payout of this token costs now, in its coin; nothing to an internal address."""
    token_id = TOKEN_ID.need(call.body)
    address = ADDRESS.read(call.body) or ""
    token = call.ports.catalogue.token(token_id)
    if token is None:
        raise _unknown("token_id", "token")
    fee = await call.ports.withdrawals.fee(token, address)
    return {"token_id": token.id, "crypto": fee.coin.symbol, "fee": str(fee)}


async def token_rate(call: Call) -> Data:
    """How much of a coin an amount of US dollars buys."""
    coin = _coin(call.ports, TOKEN_ID.need(call.body))
    usd = amount(call.body, "amount", _AMOUNT)
    price = call.ports.prices.usd(coin)
    if price <= 0:
        raise Refused(Problem.SERVICE_ERROR, f"There is no price for {coin.symbol} now: try again later.")
    units = (2 * usd * 10**RATE_DECIMALS + price) // (2 * price)
    return {"price": plain(price, LEDGER_DECIMALS), "value": plain(units, RATE_DECIMALS)}


async def coins(call: Call) -> Data:
    """Every coin with its tokens."""
    ports = call.ports
    return {
        "list": [
            {
                **_coin_view(call, coin),
                "symbol": coin.symbol,
                "precision": coin.display_decimals,
                "coin_id": coin.id,
                "status": 1,
                "tokens": [
                    {
                        **_token_view(ports, token),
                        "is_support_memo": token.takes_memo,
                        "status": 2 if ports.networks.status(token.chain) == 2 else token.status,
                        "precision": token.payout_decimals,
                    }
                    for token in ports.catalogue.tokens_of(coin)
                ],
            }
            for coin in ports.catalogue.coins()
        ]
    }


async def coins_old(call: Call) -> Data:
    """`support/token`: coins whose `token_id` is the coin's id."""
    return {"list": [{**_coin_view(call, coin), "token_id": coin.id} for coin in call.ports.catalogue.coins()]}


async def tokens_old(call: Call) -> Data:
    """`token/chain`: the tokens of a coin, named by its id or that of one of its tokens."""
    coin = _coin(call.ports, TOKEN_ID.need(call.body))
    tokens: Iterable[Token] = call.ports.catalogue.tokens_of(coin)
    return {"list": [{**_token_view(call.ports, token), "type_symbol": token.standard} for token in tokens]}


def _coin_view(call: Call, coin: Coin) -> Data:
    return {
        "crypto": coin.symbol,
        "name": coin.name,
        "logo": coin.logo,
        "min": call.limits.minimum.get(coin.symbol) or plain(1, coin.display_decimals),
        "price": call.ports.prices.rate_text(coin),
    }


def _token_view(ports: Ports, token: Token) -> Data:
    network = ports.catalogue.network(token.chain)
    return {
        "token_id": token.id,
        "crypto": token.coin.symbol,
        "logo": token.coin.logo,
        "name": token.chain if network is None else network.name,
        "network": token.standard,
        "chain": token.chain,
        "contract": token.wire_contract,
        "chain_logo": "" if network is None else str(network.param("logo")),
        "network_fee_crypto": token.coin.symbol,
        "network_coin_id": token.coin.id,
    }


async def heights(call: Call) -> list[Data]:
    """Where the chains stand."""
    return [
        {
            "chain": height.chain,
            "current_chain_height": height.current,
            "tx_confirm_block_num": height.confirmations,
            **({} if height.block_rate_s is None else {"block_rate": height.block_rate_s}),
        }
        for height in call.ports.networks.heights()
    ]


class WebhookResend:
    """`webhook/resend`. It has no key of its own, so an equal request within 240 s gets its first answer and no second effect
    (failure model, section 7, point 8); the limits of one a minute and 25 a day stand behind it in the database.
    """

    def __init__(self, *, answers_max: int = 1000) -> None:
        self._answers: Latest[tuple[int, bytes], tuple[float, int]] = Latest(answers_max)

    async def __call__(self, call: Call) -> Data:
        """Queue webhooks of final orders once more."""
        start = seconds(call.body, "start_timestamp", _START)
        end = seconds(call.body, "end_timestamp", _END)
        failed_only = choice(call.body, "webhook_result", WEBHOOK_RESULTS) == WEBHOOK_RESULTS[0]
        transaction_type = choice(call.body, "transaction_type", TRANSACTION_TYPES)
        if start is None:
            refuse(f"start_timestamp is missing: {_START}.")
        end = start + RESEND_SPAN_S_MAX if end is None else end
        if end <= start:
            refuse(f"end_timestamp is not after start_timestamp: {_END}.")
        if end - start > RESEND_SPAN_S_MAX:
            raise Refused(
                Problem.QUERY_DURATION_TOO_MAX, f"The span is {end - start} seconds, more than one hour: ask for at most 3600 seconds."
            )
        key = (call.merchant.id, call.signature.lower())
        known = self._answers.get(key)
        if known is not None and call.monotonic - known[0] < REPLAY_S:
            return {"resend_count": known[1]}
        count = await call.ports.resends.resend(call.merchant.id, start * 1000, end * 1000, failed_only, transaction_type)
        self._answers[key] = (call.monotonic, count)
        return {"resend_count": count}


async def not_yet(call: Call) -> Data:
    """Deposits and checkout: specified, not here yet (spec 16.17)."""
    del call
    raise Refused(Problem.NO_SUPPORT_VERSION, "Deposits and checkout are not available in this version: only withdrawals are.")


def _coin(ports: Ports, any_id: str) -> Coin:
    """The coin that a coin's or a token's id means; old clients send either (spec 4.5, 4.13)."""
    token = ports.catalogue.token(any_id)
    coin = token.coin if token is not None else ports.catalogue.coin(any_id)
    if coin is None:
        raise _unknown("The id", "coin or token")
    return coin


def _unknown(name: str, kind: str) -> Refused:
    return Refused(Problem.INVALID_COIN, f"{name} names no {kind} that exists here: /coin/all lists them.")
