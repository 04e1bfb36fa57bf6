"""The knobs of a box, as plain commands: {"network": "ETH", "do": "fork", "depth": 3}. No socket here; see docs/devnet.md for the list.

Faults belong to a node, everything else to the network. What only one family has stands in its own `verbs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final, get_args, get_type_hints

from penstock.devnet.box import COUNT_MAX, Arguments, BadCommand, BoxNetwork, BoxNode, Breakage, Faults

MAY_BE_NEGATIVE: Final = "_shift"
"""Faults whose names end so move a number either way."""


def status(network: BoxNetwork) -> dict[str, Any]:
    """What a person wants to know of a network."""
    return {"network": network.name, **network.status(), "faults": [_changed(node.faults) for node in network.nodes]}


def control(networks: Sequence[BoxNetwork], command: Any) -> dict[str, Any]:
    """Do one command and answer what came of it. Raises BadCommand, with nothing done."""
    if not isinstance(command, dict):
        raise BadCommand("a command is a JSON object with 'do'")
    network = _network(networks, command)
    network.tick()
    arguments = {key: value for key, value in command.items() if key not in {"network", "do"}}
    name = command.get("do")
    try:
        if name in {"faults", "heal"}:
            return (_faults if name == "faults" else _heal)(network, arguments)
        if isinstance(name, str) and name in network.verbs:
            return network.verbs[name](Arguments(arguments))
        if isinstance(name, str) and name in _VERBS:
            return _VERBS[name](network, Arguments(arguments))
    except ValueError as error:
        raise BadCommand(str(error)) from error
    raise BadCommand(f"'do' is one of {', '.join(sorted({'faults', 'heal', *_VERBS, *network.verbs}))}")


def _network(networks: Sequence[BoxNetwork], command: Mapping[str, Any]) -> BoxNetwork:
    named = [network for network in networks if network.name == command.get("network", networks[0].name if len(networks) == 1 else None)]
    if not named:
        raise BadCommand(f"'network' is one of {', '.join(network.name for network in networks)}")
    return named[0]


def _status(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    given.only("")
    return status(network)


def _mine(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    return {"head": network.mine(given.only("count").number("count", 1, most=COUNT_MAX))}


def _fork(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    given.only("depth transactions")
    match given.text("transactions", "keep"):
        case "keep" | "drop" | "reorder" as transactions:
            return {"head": network.fork(given.number("depth", 1), transactions)}
        case _:
            raise BadCommand("'transactions' is one of keep, drop, reorder")


def _fund(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    given.only("address units")
    return {"txid": network.fund(given.text("address"), given.number("units"))}


def _fund_token(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    given.only("contract address units")
    return {"txid": network.fund(given.text("address"), given.number("units"), given.text("contract"))}


def _holding(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    given.only("address contract")
    return {"units": str(network.holding(given.text("address"), given.text("contract", "") or None))}


def _forget(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    return {"forgotten": network.forget(given.only("txid").text("txid"))}


def _spike(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    network.spike(given.only("factor").number("factor", most=COUNT_MAX))
    return network.status()


def _block_time(network: BoxNetwork, given: Arguments) -> dict[str, Any]:
    block_ms = given.only("block_ms").number("block_ms", most=86_400_000)
    network.set_block_time(block_ms)
    return {"block_ms": block_ms}


def _faults(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    """Set faults of one node (`node`, default the first), or of all with `node` "all". What is not named stays."""
    changes = {key: value for key, value in given.items() if key != "node"}
    hints = get_type_hints(type(network.nodes[0].faults))
    for key, value in changes.items():
        if key not in hints:
            raise BadCommand(f"'{key}' is no fault; there are {', '.join(hints)}")
        if key in {"breakage", "down"}:
            allowed = (*get_args(Breakage), *([""] if key == "down" else []))
            if value not in allowed:
                raise BadCommand(f"'{key}' is one of {', '.join(map(repr, allowed))}")
        elif type(value) is not hints[key] or (hints[key] is int and value < 0 and not key.endswith(MAY_BE_NEGATIVE)):
            raise BadCommand(f"'{key}' is {'true or false' if hints[key] is bool else 'a whole number, 0 or more'}")
    for node in _nodes(network, given.get("node", 0)):
        node.faults = replace(node.faults, **changes)
    return {"faults": [_changed(node.faults) for node in network.nodes]}


def _heal(network: BoxNetwork, given: Mapping[str, Any]) -> dict[str, Any]:
    Arguments(given).only("node")
    for node in _nodes(network, given.get("node", "all")):
        node.faults = type(node.faults)()
    return {"faults": [_changed(node.faults) for node in network.nodes]}


def _nodes(network: BoxNetwork, which: Any) -> Sequence[BoxNode]:
    if which == "all":
        return network.nodes
    if type(which) is not int or not 0 <= which < len(network.nodes):
        raise BadCommand(f"'node' is from 0 to {len(network.nodes) - 1}, or \"all\"")
    return network.nodes[which : which + 1]


def _changed(faults: Faults) -> dict[str, Any]:
    """The faults that are not at rest."""
    healthy = type(faults)()
    return {one.name: value for one in fields(faults) if (value := getattr(faults, one.name)) != getattr(healthy, one.name)}


_VERBS: Final[Mapping[str, Callable[[BoxNetwork, Arguments], dict[str, Any]]]] = {
    "status": _status,
    "mine": _mine,
    "fork": _fork,
    "fund": _fund,
    "fund_token": _fund_token,
    "holding": _holding,
    "forget": _forget,
    "spike": _spike,
    "block_time": _block_time,
}
