"""`penstock.toml` and `PENSTOCK_*` to one frozen `Settings`; the only reader of the environment.

Every setting can be given in the file as `[section] key` or as `PENSTOCK_SECTION__KEY`; the environment wins. Lists are
comma-separated there. What is unknown or of the wrong kind is refused by name.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock.core.money import LEDGER_DECIMALS, MoneyError, parse_units
from penstock.core.party import Secret

_PREFIX: Final = "PENSTOCK_"
_POSTGRESQL: Final = ("postgresql://", "postgres://")
_PROCESSES_MAX: Final = 64
_NOT_SETTINGS: Final = frozenset({"PENSTOCK_HOME", "PENSTOCK_PASSPHRASE", "PENSTOCK_TEST_POSTGRES"})


class SettingWrong(Exception):
    """A setting that cannot be used; the text names it and says what would be right."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where `serve` listens."""

    listen: str = "127.0.0.1:8080"
    """Address and port; put a TLS proxy in front for anything but this machine."""
    processes: int = 1
    """How many processes answer callers there and deliver webhooks, on either database: `serve` starts the others and keeps them. No more than cores."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The one shared state."""

    url: str = field(default="", repr=False)
    """`sqlite:///path` or `postgresql://…`; empty is `penstock.db` in the home folder."""
    replica_url: str = field(default="", repr=False)
    """A hot standby of that PostgreSQL (`postgresql://…`): it answers `bill/info` for orders that can change no more; empty for none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may ask."""

    requests_per_second: int = 100
    """Per source address and per merchant, in each process; 0 for no limit."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For counts."""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """How events leave."""

    allow_private_targets: bool = False
    """Admit loopback and private targets, and plain http to them. For tests and the demo."""
    schedule: tuple[int, ...] = ()
    """Seconds between sends; empty is 7 sends within 30 minutes, then up to 16 within 96 hours."""


@dataclass(frozen=True, slots=True)
class PriceSource:
    """Where USD prices come from."""

    file: str = ""
    """A TOML file of `SYMBOL = "price"`; empty is the file that ships with Penstock. It does not age."""
    url: str = field(default="", repr=False)
    """An HTTP source instead: a JSON address that holds {ids} (one call for all coins) or {id} (one call a coin)."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """The source's name of each coin, such as ETH = "ethereum"."""
    pointer: str = ""
    """JSON pointer to the price, may hold {id}, such as /{id}/usd."""
    at_pointer: str = ""
    """JSON pointer to the Unix seconds at which it was true; without one a price is as old as our question."""
    age_max_s: int = 600
    """A price that is older refuses new quotes that need it. One that more than doubled or halved since the last is refused until a restart."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The operator's limits, per coin symbol."""

    minimum: Mapping[str, str] = field(default_factory=dict)
    """Least amount of a withdrawal, such as USDT = "1"."""
    maximum: Mapping[str, str] = field(default_factory=dict)
    """Greatest amount of a withdrawal."""
    deny_addresses: tuple[str, ...] = ()
    """Addresses that are never paid."""
    withdrawals: bool = True
    """Off refuses every new withdrawal."""


@dataclass(frozen=True, slots=True)
class SignerSettings:
    """The process that holds the keys. It reads these settings by itself; the gateway cannot widen them."""

    socket: str = ""
    """Unix socket of a signer that runs by itself (`penstock signer`); empty: `serve` starts one as its child."""
    uids: tuple[int, ...] = ()
    """Users, by number, that may ask the signer beside its own; each other one is turned away."""
    order_max: Mapping[str, str] = field(default_factory=dict)
    """The most that one order may pay, per coin symbol, such as USDT = "5000". An order above it goes to a person."""
    day_max: Mapping[str, str] = field(default_factory=dict)
    """The most that all orders may pay within any 24 hours, per coin symbol. Orders above it wait."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """One network; off until it has node URLs."""

    rpc_urls: tuple[str, ...] = field(default=(), repr=False)
    """Nodes in order of preference. Their addresses may hold credentials, so they are never logged."""
    chain_id: int = 0
    """Makes it a test network with this chain id and drops the pinned genesis."""
    confirmations: int = 0
    """Number of blocks; 0: the catalogue's, and 2 on a test network. A payment is final after so many on Bitcoin, on an EVM test network, and on an EVM network without a finality tag. Elsewhere, if set, success is only *reported* after so many, and can still be undone."""
    fee_max: str = ""
    """The most that one transaction may cost, in the network's own coin; empty: the catalogue's cap, such as 0.05 on ETH."""
    hot_addresses: int = 1
    """Addresses that pay, 1 to 16: one stuck transaction then holds only what is behind it on its own. EVM, TRON and XRP Ledger alone."""
    in_flight_max: int = 200
    """Attempts that may be open at once on a hot address."""
    block_ms: int = 0
    """Usual time between blocks; 0: the catalogue's, and 1000 on a test network."""
    batch_max: int = 0
    """Where a transaction can pay many orders (Bitcoin, tokens on EVM): the most in one, up to 500; 0 keeps the catalogue's, 100 on Bitcoin and 1 on EVM, where [more is to do](rails.md#many-in-one-transaction)."""
    batch_window_s: int = -1
    """Where a transaction can pay many orders (Bitcoin, tokens on EVM): the windows in which they gather; at the end of one goes who came in it. Left out: the catalogue's, 20 on Bitcoin and 0 on EVM."""
    node_id: str = ""
    """Lightning: identity public key of the node that pays, 66 hex digits. Another node is never used."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, once read never changed."""

    home: Path
    passphrase: Secret | None = None
    server: Server = field(default_factory=Server)
    database: Storage = field(default_factory=Storage)
    limits: Limits = field(default_factory=Limits)
    webhooks: Webhooks = field(default_factory=Webhooks)
    prices: PriceSource = field(default_factory=PriceSource)
    policy: PolicySettings = field(default_factory=PolicySettings)
    signer: SignerSettings = field(default_factory=SignerSettings)
    networks: Mapping[str, NetworkSettings] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        """The database to open."""
        return self.database.url or f"sqlite:///{self.home / 'penstock.db'}"


def load(home: Path | None = None, environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read file and environment. `overrides` are `section__key` from the command line. Raises SettingWrong."""
    env = dict(os.environ if environment is None else environment)
    home = home or Path(env.get("PENSTOCK_HOME") or "penstock-home")
    tree = _file(home / "penstock.toml")
    for name, text in sorted(env.items()):
        if name.startswith(_PREFIX) and name not in _NOT_SETTINGS:
            if "__" in name:
                _put(tree, [part.lower() for part in name.removeprefix(_PREFIX).split("__")], text, name)
            elif (meant := _meant(name)) is not None:
                raise SettingWrong(f"{name} is not a setting; write {meant}")
    for name, value in overrides.items():
        if value is not None:
            _put(tree, name.split("__"), value, name)
    return made_of(tree, home=home, passphrase=env.get("PENSTOCK_PASSPHRASE"))


def made_of(tree: Mapping[str, Any], *, home: Path, passphrase: str | None) -> Settings:
    """Settings from what was read, or from what `spelled` made of others. Raises SettingWrong."""
    sections = {f.name: f for f in dataclasses.fields(Settings)}
    hints = typing.get_type_hints(Settings)
    values: dict[str, Any] = {"home": home.absolute()}
    if passphrase:
        values["passphrase"] = Secret(passphrase)
    for section, content in tree.items():
        if section not in sections or section in ("home", "passphrase"):
            raise SettingWrong(f"there is no section [{section}]; there are {', '.join(sorted(set(sections) - {'home', 'passphrase'}))}")
        if section == "networks":
            values[section] = _networks(content)
        else:
            values[section] = _section(hints[section], content, section)
    return _checked(Settings(**values))


def spelled(settings: Settings) -> dict[str, Any]:
    """All but home and passphrase as JSON can say it: a child has the settings of its parent, whatever the file says by now."""
    sections = (f.name for f in dataclasses.fields(settings) if f.name not in ("home", "passphrase", "networks"))
    networks = {chain: _spelled(network) for chain, network in settings.networks.items()}
    return {section: _spelled(getattr(settings, section)) for section in sections} | {"networks": networks}


def _spelled(section: Any) -> dict[str, Any]:
    """Without what is as it is when nobody says anything."""
    unsaid = type(section)()
    values = {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}
    return {
        key: dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value != getattr(unsaid, key)
    }


def child_environment() -> dict[str, str]:
    """The environment for a child of this process that is told the passphrase in another way."""
    return {name: value for name, value in os.environ.items() if name != "PENSTOCK_PASSPHRASE"}


def bare_environment() -> dict[str, str]:
    """The environment for a child of this process that needs none of our settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}


def _meant(name: str) -> str | None:
    """The setting that a name with single underscores stands for. Others are not ours: clusters set PENSTOCK_PORT and the like."""
    words = name.removeprefix(_PREFIX).lower()
    hints = typing.get_type_hints(Settings)
    for key in typing.get_type_hints(NetworkSettings):
        if words.startswith("networks_") and words.endswith(f"_{key}"):
            chain = words.removeprefix("networks_").removesuffix(f"_{key}")
            return f"{_PREFIX}NETWORKS__{chain}__{key}".upper()
    for section, cls in hints.items():
        if dataclasses.is_dataclass(cls) and any(words == f"{section}_{key}" for key in typing.get_type_hints(cls)):
            return f"{_PREFIX}{section}__{words.removeprefix(section + '_')}".upper()
    return None


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingWrong(f"{path.name} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingWrong(f"{path.name} is not valid TOML: {error}") from error


def _put(tree: dict[str, Any], keys: list[str], value: object, name: str) -> None:
    for key in keys[:-1]:
        known = next((k for k in tree if k.lower() == key.lower()), key)
        tree = tree.setdefault(known, {})
        if not isinstance(tree, dict):
            raise SettingWrong(f"{name} does not fit: {key} is not a section")
    tree[keys[-1]] = value


def _networks(content: object) -> dict[str, NetworkSettings]:
    if not isinstance(content, dict):
        raise SettingWrong("[networks] must be a section")
    networks: dict[str, NetworkSettings] = {}
    for name, settings in content.items():
        chain = name.upper()
        if chain in networks:
            raise SettingWrong(f"[networks.{chain}] is there twice; upper and lower case name the same network")
        networks[chain] = _section(NetworkSettings, settings, f"networks.{chain}")
    return networks


def _section(cls: type[Any], content: object, where: str) -> Any:
    if not isinstance(content, dict):
        raise SettingWrong(f"[{where}] must be a section")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, raw in content.items():
        if key not in hints:
            raise SettingWrong(f"{where}.{key} is not a setting; [{where}] has {', '.join(sorted(hints))}")
        values[key] = _value(hints[key], raw, f"{where}.{key}")
    return cls(**values)


def _value(kind: Any, raw: object, where: str) -> object:
    origin = typing.get_origin(kind)
    if origin is tuple:
        items = [part.strip() for part in raw.split(",") if part.strip()] if isinstance(raw, str) else raw
        if not isinstance(items, list):
            raise SettingWrong(f"{where} must be a list")
        return tuple(_value(typing.get_args(kind)[0], item, where) for item in items)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(raw, dict):
            raise SettingWrong(f"{where} must be a table")
        return types.MappingProxyType({key.upper(): _text_of(value, f"{where}.{key.upper()}") for key, value in raw.items()})
    convert: dict[Any, Callable[[object], object]] = {bool: _bool, int: _int, str: _str}
    try:
        return convert[kind](raw)
    except ValueError as error:
        raise SettingWrong(f"{where} must be {error}") from error


def _text_of(raw: object, where: str) -> str:
    if isinstance(raw, str | int) and not isinstance(raw, bool):
        return str(raw)
    raise SettingWrong(f"{where} must be a text, in quotation marks")


def _bool(raw: object) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in words:
        return words[raw.lower()]
    raise ValueError("true or false")


def _int(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    if isinstance(raw, str) and raw.isascii() and raw.isdigit():
        return int(raw)
    raise ValueError("a whole number that is not negative")


def _str(raw: object) -> str:
    if isinstance(raw, str):
        return raw
    raise ValueError("a text, in quotation marks")


def _checked(settings: Settings) -> Settings:
    host, _, port = settings.server.listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port[:6]) > 65_535:
        raise SettingWrong("server.listen must be address:port, such as 127.0.0.1:8080")
    if not 1 <= settings.server.processes <= _PROCESSES_MAX:
        raise SettingWrong(f"server.processes is {settings.server.processes}, and must be 1 to {_PROCESSES_MAX}")
    if settings.database.replica_url and not all(
        url.startswith(_POSTGRESQL) for url in (settings.database.replica_url, settings.database_url)
    ):
        raise SettingWrong("database.replica_url must be postgresql://… and a standby of database.url, which must be PostgreSQL too")
    for proxy in settings.limits.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError as error:
            raise SettingWrong(f"limits.trusted_proxies: {proxy} is not an address or network") from error
    limits = {"policy.minimum": settings.policy.minimum, "policy.maximum": settings.policy.maximum}
    limits |= {"signer.order_max": settings.signer.order_max, "signer.day_max": settings.signer.day_max}
    for name, by_coin in limits.items():
        for symbol, text in by_coin.items():
            _amount(text, f"{name}.{symbol}")
    if settings.signer.socket and not Path(settings.signer.socket).is_absolute():
        raise SettingWrong("signer.socket must be an absolute path")
    for chain, network in settings.networks.items():
        if network.fee_max:
            _amount(network.fee_max, f"networks.{chain}.fee_max")
        if network.hot_addresses < 1:
            raise SettingWrong(f"networks.{chain}.hot_addresses is {network.hot_addresses}, and somebody has to pay: at least 1")
        _check_urls(chain, network)
    return settings


def _check_urls(chain: str, network: NetworkSettings) -> None:
    """A Lightning node's address names its program too, and its identity has to be pinned (`rails.lightning.talk`)."""
    programs = tuple(f"{program}+{scheme}" for program in ("lnd", "electrum") for scheme in ("https://", "http://"))
    if not network.node_id and any(url.startswith(programs) for url in network.rpc_urls):
        raise SettingWrong(f"networks.{chain}.node_id is missing: the identity public key of the node that pays")
    wanted = programs if network.node_id else ("http://", "https://")
    if any(not url.startswith(wanted) for url in network.rpc_urls):
        raise SettingWrong(f"networks.{chain}.rpc_urls must begin with {' or '.join(wanted)}")


def _amount(text: str, where: str) -> None:
    try:
        parse_units(text, LEDGER_DECIMALS)
    except MoneyError as error:
        raise SettingWrong(f'{where} must be a plain decimal text, such as "12.5", with at most {LEDGER_DECIMALS} decimals') from error
