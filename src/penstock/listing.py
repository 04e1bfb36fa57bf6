"""The catalogue's file: read, laid over another, and every entry checked, so that a look-up later can only find or not find."""

from __future__ import annotations

import re
import tomllib
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from penstock.core.money import LEDGER_DECIMALS, Coin, MoneyError, Network, Token, parse_units

ID_NAMESPACE: Final = uuid.UUID("80aaf850-bb34-5ef9-bf11-082de5cc0124")
"""uuid5(NAMESPACE_DNS, "catalog.penstock"): where ids come from that CCPayment never published."""

CHAIN_ID_MAX: Final = 2**63 - 37
"""EIP-2294: with a larger one, `v` of a legacy transaction no longer fits 64 bits."""

ContractCheck = Callable[[str, str], str | None]
"""(family, contract) -> None, or what is wrong. Passed in by wiring, because checksums belong to the rails."""

_CHAIN: Final = re.compile(r"[A-Z][A-Z0-9_]{1,19}", re.ASCII)
_SYMBOL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,19}", re.ASCII)
_EVM_CONTRACT: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_HASH: Final = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_ANY_CONTRACT: Final = re.compile(r"[!-~]{1,128}", re.ASCII)

_EVM_PARAMS: Final[Mapping[str, tuple[type, Any]]] = MappingProxyType(
    {
        "has_finality_tag": (bool, False),
        "fee_model": (str, "eip1559"),
        "op_stack": (bool, False),
        "gas_varies": (bool, False),
        "priority_fee_min_wei": (int, 0),
        "gas_price_max_wei": (int, None),
        "batch_max": (int, 1),
        "batch_window_ms": (int, 0),
        "fee_max": (str, None),
        "explorer_tx": (str, ""),
        "logo": (str, ""),
    }
)
_COMMON_PARAMS: Final[Mapping[str, tuple[type, Any]]] = MappingProxyType(
    {"fee_max": (str, None), "explorer_tx": (str, ""), "logo": (str, "")}
)
_BITCOIN_PARAMS: Final[Mapping[str, tuple[type, Any]]] = MappingProxyType(
    {
        **_COMMON_PARAMS,
        "batch_max": (int, 100),
        "batch_window_ms": (int, 20_000),
        "fee_blocks": (int, 3),
        "fee_rate_max": (int, 1_000_000),
        "fee_rate_fallback": (int, 10_000),
        "large_amount": (str, "0"),
        "watch_from_s": (int, 1_767_225_600),
    }
)
_LIGHTNING_PARAMS: Final[Mapping[str, tuple[type, Any]]] = MappingProxyType(
    {
        **_COMMON_PARAMS,
        "fee_limit_sat": (int, 10),
        "fee_limit_ppm": (int, 10_000),
        "cltv_limit": (int, 1_008),
        "pay_timeout_s": (int, 60),
        "send_window_s": (int, 3_600),
    }
)
FAMILIES: Final[Mapping[str, Mapping[str, tuple[type, Any]]]] = MappingProxyType(
    {
        "evm": _EVM_PARAMS,
        "tron": _COMMON_PARAMS,
        "xrp": _COMMON_PARAMS,
        "bitcoin": _BITCOIN_PARAMS,
        "lightning": _LIGHTNING_PARAMS,
    }
)
"""Chain families and what each may say of a network, with type and default; None: it must be said."""

_NETWORK_FIELDS: Final = frozenset({"family", "name", "chain_id", "genesis", "native", "block_ms", "confirmations"})
_COIN_FIELDS: Final = frozenset({"id", "id_from", "name", "display_decimals", "logo"})
_TOKEN_FIELDS: Final = frozenset({"id", "id_from", "standard", "contract", "wire_contract", "decimals", "takes_memo", "status", "step"})


class CatalogError(ValueError):
    """An entry that cannot stand. The text names it and says what would be right."""


def derived_coin_id(symbol: str) -> str:
    """The id of a coin whose CCPayment id is not known. Made once, then fixed in the file as text."""
    return str(uuid.uuid5(ID_NAMESPACE, f"coin:{symbol}"))


def derived_token_id(chain_id: int, contract: str | None, *, family: str = "evm") -> str:
    """The id of a token whose CCPayment id is not known; `contract` None is the network's own coin. EVM contracts have no letter case."""
    if family != "evm":
        return str(uuid.uuid5(ID_NAMESPACE, f"token:{family}:{chain_id}:{contract or 'native'}"))
    return str(uuid.uuid5(ID_NAMESPACE, f"token:eip155:{chain_id}:{contract.lower() if contract else 'native'}"))


@dataclass(frozen=True, slots=True)
class Listed:
    """What a file lists, in its order: networks by wire name, coins by symbol, tokens by symbol and network, reserved ids with their meaning."""

    networks: Mapping[str, Network]
    coins: Mapping[str, Coin]
    tokens: Mapping[tuple[str, str], Token]
    reserved: Mapping[str, str]


def read(source: str | Path) -> dict[str, Any]:
    """The tables of a file, or of TOML text. Raises CatalogError."""
    name = str(source) if isinstance(source, Path) else "catalogue text"
    try:
        tables = tomllib.loads(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{name}: {error}") from error
    for key, table in tables.items():
        if key not in {"networks", "coins", "tokens", "reserved"} or not isinstance(table, dict):
            raise CatalogError(f"{name}: {key} is not one of the tables networks, coins, tokens, reserved")
    return tables


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The tables of `base` with the fields of `over` added or in their place."""
    found = dict(base)
    for key, value in over.items():
        below = found.get(key)
        found[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return found


def checked(tables: Mapping[str, Any], check_contract: ContractCheck | None) -> Listed:
    """What the tables list. Raises CatalogError."""
    reserved = {_known_id(f"reserved {key}", key): str(text) for key, text in tables.get("reserved", {}).items()}
    coins = {symbol: _coin(symbol, fields) for symbol, fields in tables.get("coins", {}).items()}
    networks = {chain: _Entry(f"network {chain}", fields, _network_fields(chain, fields)) for chain, fields in _items(tables, "networks")}
    tokens: dict[tuple[str, str], Token] = {}
    for chain, of_chain in _items(tables, "tokens"):
        if chain not in networks:
            raise CatalogError(f"tokens.{chain}: there is no [networks.{chain}]; the catalogue has {', '.join(networks)}")
        for symbol, fields in of_chain.items():
            if symbol not in coins:
                raise CatalogError(f"token {chain}.{symbol}: there is no [coins.{symbol}]; add one, or name the token by its coin's symbol")
            tokens[symbol, chain] = _token(chain, coins[symbol], fields, networks[chain], check_contract)
    _refuse_doubles(coins.values(), tokens.values(), reserved)
    built = {chain: _network(chain, entry, tokens) for chain, entry in networks.items()}
    _refuse_double_chain_ids(built.values())
    return Listed(built, coins, tokens, reserved)


class _Entry:
    """One table of the file: typed fields, none unknown, errors that name the entry."""

    def __init__(self, name: str, fields: object, known: Iterable[str]) -> None:
        if not isinstance(fields, dict):
            raise CatalogError(f"{name}: is no table")
        self.name, self._fields = name, fields
        if unknown := sorted(set(fields) - set(known)):
            raise CatalogError(f"{name}: unknown field {unknown[0]}; known are {', '.join(sorted(known))}")

    def has(self, key: str) -> bool:
        return key in self._fields

    def _get(self, key: str, kind: type, default: object) -> Any:
        value = self._fields.get(key, default)
        if value is None:
            raise CatalogError(f"{self.name}: {key} is missing")
        if type(value) is not kind:
            raise CatalogError(f"{self.name}: {key} is {value!r}; {_KINDS[kind]} would be right")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._get(key, str, default))

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = int(self._get(key, int, default))
        if not low <= value <= high:
            raise CatalogError(f"{self.name}: {key} is {value}; {low} to {high} would be right")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        return bool(self._get(key, bool, default))

    def param(self, key: str, kind: type, default: object) -> str | int | bool:
        value: str | int | bool = self._get(key, kind, default)
        return value


_KINDS: Final[Mapping[type, str]] = MappingProxyType({str: "a text in quotes", int: "a whole number", bool: "true or false"})


def _items(tables: Mapping[str, Any], kind: str) -> list[tuple[str, dict[str, Any]]]:
    for chain, fields in tables.get(kind, {}).items():
        if _CHAIN.fullmatch(chain) is None or not isinstance(fields, dict):
            raise CatalogError(f"{kind}.{chain}: a table [{kind}.CHAIN] with the chain in capitals would be right")
    return list(tables.get(kind, {}).items())


def _network_fields(chain: str, fields: dict[str, Any]) -> frozenset[str]:
    family = fields.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CatalogError(f"network {chain}: family is {family!r}; one of {', '.join(FAMILIES)} would be right")
    return _NETWORK_FIELDS.union(FAMILIES[family])


def _coin(symbol: str, fields: object) -> Coin:
    entry = _Entry(f"coin {symbol}", fields, _COIN_FIELDS)
    if _SYMBOL.fullmatch(symbol) is None:
        raise CatalogError(f"{entry.name}: a symbol is 1 to 20 letters, digits, dots and dashes")
    entry.text("id_from", "")
    if not entry.has("id"):
        raise CatalogError(f'{entry.name}: id is missing; where CCPayment\'s is not known, write id = "{derived_coin_id(symbol)}"')
    return Coin(
        id=_known_id(entry.name, entry.text("id")),
        symbol=symbol,
        name=entry.text("name"),
        display_decimals=entry.number("display_decimals", 0, LEDGER_DECIMALS),
        logo=entry.text("logo", ""),
    )


def _token(chain: str, coin: Coin, fields: object, network: _Entry, check_contract: ContractCheck | None) -> Token:
    entry = _Entry(f"token {chain}.{coin.symbol}", fields, _TOKEN_FIELDS)
    entry.text("id_from", "")
    contract = entry.text("contract") if entry.has("contract") else None
    family, chain_id = network.text("family"), _chain_id(network)
    if not entry.has("id"):
        would_be = derived_token_id(chain_id, contract, family=family)
        raise CatalogError(f'{entry.name}: id is missing; where CCPayment\'s is not known, write id = "{would_be}"')
    if contract is not None:
        _check_contract(entry.name, family, contract, check_contract)
    elif network.text("native", "") != coin.symbol:
        raise CatalogError(f"{entry.name}: contract is missing; only the network's own coin, {network.text('native', '')}, has none")
    wire_contract = entry.text("wire_contract", contract or str(chain_id))
    if contract is not None and wire_contract != contract and not (family == "evm" and wire_contract.lower() == contract.lower()):
        raise CatalogError(f"{entry.name}: wire_contract {wire_contract} is another contract than {contract}")
    decimals = entry.number("decimals", 0, 255)
    try:
        return Token(
            id=_known_id(entry.name, entry.text("id")),
            coin=coin,
            chain=chain,
            standard=entry.text("standard"),
            contract=contract,
            wire_contract=wire_contract,
            decimals=decimals,
            takes_memo=entry.flag("takes_memo"),
            status=entry.number("status", 1, 3, 1),
            step=entry.number("step", 1, 10**LEDGER_DECIMALS, 1),
        )
    except MoneyError as error:
        raise CatalogError(f"{entry.name}: decimals is {decimals}; the books hold {LEDGER_DECIMALS}, so it cannot be listed") from error


def _network(chain: str, entry: _Entry, tokens: Mapping[tuple[str, str], Token]) -> Network:
    family = entry.text("family")
    native = tokens.get((entry.text("native", ""), chain))
    if native is None:
        raise CatalogError(
            f"{entry.name}: its own coin is missing; [tokens.{chain}.{entry.text('native')}] without contract would be right"
        )
    genesis = entry.text("genesis") if entry.has("genesis") else None
    if genesis is not None and _HASH.fullmatch(genesis) is None:
        raise CatalogError(f"{entry.name}: genesis is {genesis!r}; 0x and 64 hex digits in lower case would be right")
    params = {key: entry.param(key, kind, default) for key, (kind, default) in FAMILIES[family].items()}
    _check_params(entry, params, native)
    return Network(
        chain=chain,
        family=family,
        name=entry.text("name"),
        native_token_id=native.id,
        chain_id=_chain_id(entry),
        genesis=genesis,
        block_ms=entry.number("block_ms", 1, 3_600_000),
        confirmations=entry.number("confirmations", 1, 100_000),
        is_test=False,
        params=tuple(sorted(params.items())),
    )


def _chain_id(entry: _Entry) -> int:
    """What its nodes say they serve (docs/adr/0003); the XRP Ledger's own is 0."""
    return entry.number("chain_id", 0 if entry.text("family") == "xrp" else 1, CHAIN_ID_MAX)


def _check_params(entry: _Entry, params: Mapping[str, str | int | bool], native: Token) -> None:
    if params.get("explorer_tx") and "{txid}" not in str(params["explorer_tx"]):
        raise CatalogError(f"{entry.name}: explorer_tx has no {{txid}} in it")
    _check_evm_params(entry, params)
    try:
        fee_max = parse_units(str(params["fee_max"]), native.decimals)
    except MoneyError as error:
        raise CatalogError(f"{entry.name}: fee_max: {error}") from error
    if fee_max == 0:
        raise CatalogError(f"{entry.name}: fee_max is 0, so nothing could ever be paid")


def _check_evm_params(entry: _Entry, params: Mapping[str, str | int | bool]) -> None:
    if "fee_model" not in params:
        return
    if params["fee_model"] not in {"eip1559", "legacy"}:
        raise CatalogError(f"{entry.name}: fee_model is {params['fee_model']!r}; eip1559 or legacy would be right")
    if not 0 <= int(params["priority_fee_min_wei"]) < int(params["gas_price_max_wei"]):
        raise CatalogError(f"{entry.name}: priority_fee_min_wei must be 0 or more and below gas_price_max_wei")


def _check_contract(name: str, family: str, contract: str, check: ContractCheck | None) -> None:
    if family == "evm" and (_EVM_CONTRACT.fullmatch(contract) is None or int(contract, 16) == 0):
        raise CatalogError(f"{name}: contract is {contract!r}; 0x and 40 hex digits, not all 0, would be right")
    if _ANY_CONTRACT.fullmatch(contract) is None:
        raise CatalogError(f"{name}: contract is {contract!r}; 1 to 128 printable characters would be right")
    if check is not None and (problem := check(family, contract)) is not None:
        raise CatalogError(f"{name}: contract {contract}: {problem}")


def _known_id(name: str, text: str) -> str:
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text:
        raise CatalogError(f"{name}: id is {text!r}; a UUID in lower case with hyphens would be right")
    return text


def _refuse_doubles(coins: Iterable[Coin], tokens: Iterable[Token], reserved: Mapping[str, str]) -> None:
    """One id one coin, one id one token (a token may share its own coin's), one contract one token."""
    coin_of: dict[str, Coin] = {}
    for coin in coins:
        if (other := coin_of.setdefault(coin.id, coin)) is not coin:
            raise CatalogError(f"coin {coin.symbol}: id {coin.id} is coin {other.symbol}'s")
    by_id: dict[str, str] = {}
    by_contract: dict[tuple[str, str], str] = {}
    for token in tokens:
        name = f"{token.chain}.{token.coin.symbol}"
        if (taken := by_id.setdefault(token.id, name)) != name:
            raise CatalogError(f"token {name}: id {token.id} is token {taken}'s")
        if coin_of.get(token.id, token.coin) is not token.coin:
            raise CatalogError(
                f"token {name}: id {token.id} is coin {coin_of[token.id].symbol}'s; a token may share its own coin's id only"
            )
        where = (token.chain, (token.contract or "native").lower())
        if (taken := by_contract.setdefault(where, name)) != name:
            raise CatalogError(f"token {name}: contract {token.contract} is token {taken}'s")
    for taken_id in reserved.keys() & (coin_of.keys() | by_id.keys()):
        raise CatalogError(f"id {taken_id} is reserved for: {reserved[taken_id]}")


def _refuse_double_chain_ids(networks: Iterable[Network]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for network in networks:
        if (other := seen.setdefault((network.family, network.chain_id), network.chain)) != network.chain:
            raise CatalogError(f"network {network.chain}: chain_id {network.chain_id} is {other}'s")
