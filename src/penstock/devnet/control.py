"""The knobs of a box, as plain commands: {"network": "ETH", "do": "fork", "depth": 3}. No socket here; see docs/devnet.md for the list.

A network of the box is its chain and the nodes that tell of it; faults belong to a node, everything else to the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, get_args, get_type_hints

from penstock.devnet.evm import EvmChain
from penstock.devnet.mempool import Rejected
from penstock.devnet.node import Breakage, EvmNode, Faults

NODES_MAX: Final = 16
COUNT_MAX: Final = 10_000


class BadCommand(ValueError):
    """A command that cannot be done; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class BoxNetwork:
    """One network of the box with its nodes; the first is served at /NAME, the others at /NAME/1 and so on."""

    chain: EvmChain
    nodes: tuple[EvmNode, ...]

    @property
    def name(self) -> str:
        """As the wire calls it: ETH, POLYGON, BSC."""
        return self.chain.spec.name


def network_of(chain: EvmChain, *, nodes: int = 2) -> BoxNetwork:
    """A network whose nodes tell the truth for now. Raises ValueError for a number of nodes out of bounds."""
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a network has from 1 to {NODES_MAX} nodes")
    return BoxNetwork(chain, tuple(EvmNode(chain) for _ in range(nodes)))


def status(network: BoxNetwork) -> dict[str, Any]:
    """What a person wants to know of a network."""
    chain = network.chain
    return {
        "network": network.name,
        "chain_id": chain.spec.chain_id,
        "head": chain.head.number,
        "final": chain.final if chain.spec.finality_tag else None,
        "block_ms": chain.block_ms,
        "base_fee": str(chain.next_base_fee()),
        "waiting": len(chain.mempool),
        "faucet": chain.faucet,
        "tokens": {token.symbol: {"contract": address, "decimals": token.decimals} for address, token in chain.spec.tokens.items()},
        "faults": [_changed(node.faults) for node in network.nodes],
    }


def control(networks: Sequence[BoxNetwork], command: Any) -> dict[str, Any]:
    """Do one command and answer what came of it. Raises BadCommand, with nothing done."""
    if not isinstance(command, dict):
        raise BadCommand("a command is a JSON object with 'do'")
    network = _network(networks, command)
    network.chain.tick()
    name = command.get("do")
    verb = _VERBS.get(name) if isinstance(name, str) else None
    if verb is None:
        raise BadCommand(f"'do' is one of {', '.join(sorted(_VERBS))}")
    arguments = {key: value for key, value in command.items() if key not in {"network", "do"}}
    try:
        return verb(network, arguments)
    except (ValueError, Rejected) as error:
        raise BadCommand(str(error)) from error


def _network(networks: Sequence[BoxNetwork], command: Mapping[str, Any]) -> BoxNetwork:
    named = [network for network in networks if network.name == command.get("network", networks[0].name if len(networks) == 1 else None)]
    if not named:
        raise BadCommand(f"'network' is one of {', '.join(network.name for network in networks)}")
    return named[0]


class _Arguments:
    """The rest of a command: each argument is read once, typed, and none may be left over."""

    def __init__(self, given: Mapping[str, Any], known: str) -> None:
        self._given = given
        if unknown := sorted(set(given) - set(known.split())):
            raise BadCommand(f"'{unknown[0]}' is no argument here; known are {known or 'none'}")

    def number(self, name: str, default: int | None = None, *, most: int = 2**256 - 1) -> int:
        value = self._given.get(name, default)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 78:
            value = int(value)
        if type(value) is not int or not 0 <= value <= most:
            raise BadCommand(f"'{name}' is a whole number from 0 to {most}, given as number or text")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._given.get(name, default)
        if not isinstance(value, str):
            raise BadCommand(f"'{name}' is a text")
        return value


def _status(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    _Arguments(given, "")
    return status(network)


def _mine(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    network.chain.mine(_Arguments(given, "count").number("count", 1, most=COUNT_MAX))
    return {"head": network.chain.head.number}


def _fork(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = _Arguments(given, "depth transactions")
    match arguments.text("transactions", "keep"):
        case "keep" | "drop" | "reorder" as transactions:
            network.chain.fork(arguments.number("depth", 1), transactions)
        case _:
            raise BadCommand("'transactions' is one of keep, drop, reorder")
    return {"head": network.chain.head.number}


def _fund(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = _Arguments(given, "address wei")
    return {"txid": network.chain.fund(arguments.text("address"), arguments.number("wei"))}


def _fund_token(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = _Arguments(given, "contract address units")
    return {"txid": network.chain.fund_token(arguments.text("contract"), arguments.text("address"), arguments.number("units"))}


def _forget(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"forgotten": network.chain.forget(_Arguments(given, "txid").text("txid"))}


def _spike(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    network.chain.spike(_Arguments(given, "factor").number("factor", most=COUNT_MAX))
    return {"base_fee": str(network.chain.next_base_fee())}


def _block_time(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    network.chain.set_block_time(_Arguments(given, "block_ms").number("block_ms", most=86_400_000))
    return {"block_ms": network.chain.block_ms}


def _faults(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    """Set faults of one node (`node`, default the first), or of all with `node` "all". What is not named stays."""
    changes = {key: value for key, value in given.items() if key != "node"}
    hints = get_type_hints(Faults)
    for key, value in changes.items():
        if key not in hints:
            raise BadCommand(f"'{key}' is no fault; there are {', '.join(hints)}")
        if key in {"breakage", "down"}:
            allowed = (*get_args(Breakage), *([""] if key == "down" else []))
            if value not in allowed:
                raise BadCommand(f"'{key}' is one of {', '.join(map(repr, allowed))}")
        elif type(value) is not hints[key] or (value < 0 and key != "nonce_shift"):
            raise BadCommand(f"'{key}' is {'true or false' if hints[key] is bool else 'a whole number, 0 or more'}")
    for node in _nodes(network, given.get("node", 0)):
        node.faults = replace(node.faults, **changes)
    return {"faults": [_changed(node.faults) for node in network.nodes]}


def _heal(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    for node in _nodes(network, given.get("node", "all")):
        node.faults = Faults()
    return {"faults": [_changed(node.faults) for node in network.nodes]}


def _nodes(network: BoxNetwork, which: Any) -> Sequence[EvmNode]:
    if which == "all":
        return network.nodes
    if type(which) is not int or not 0 <= which < len(network.nodes):
        raise BadCommand(f"'node' is from 0 to {len(network.nodes) - 1}, or \"all\"")
    return network.nodes[which : which + 1]


def _changed(faults: Faults) -> dict[str, Any]:
    """The faults that are not at rest."""
    healthy = Faults()
    return {one.name: value for one in fields(faults) if (value := getattr(faults, one.name)) != getattr(healthy, one.name)}


_VERBS: Final[Mapping[str, Callable[[BoxNetwork, Mapping[str, Any]], dict[str, Any]]]] = {
    "status": _status,
    "mine": _mine,
    "fork": _fork,
    "fund": _fund,
    "fund_token": _fund_token,
    "forget": _forget,
    "spike": _spike,
    "block_time": _block_time,
    "faults": _faults,
    "heal": _heal,
}
