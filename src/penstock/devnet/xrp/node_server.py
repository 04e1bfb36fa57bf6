"""Methods that tell of the server: state, fees, ledger numbers.

https://xrpl.org/docs/references/http-websocket-apis/public-api-methods/server-info-methods
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.devnet.box import CLIENT_VERSION
from penstock.devnet.xrp.node_known import Known
from penstock.devnet.xrp.queue import BASE_FEE, BASE_LEVEL, LEDGERS_AHEAD, MEDIAN_LEVEL, fee_at, level_of
from penstock.devnet.xrp.rpc import Params
from penstock.devnet.xrp.settings import BASE_RESERVE, OWNER_RESERVE

DROPS_PER_XRP: Final = 10**6
_HOST: Final = "BOX"
_NODE_KEY: Final = "n9MXXueo837zYH36DvMc13BwHcqtfAWNJY5czWVbp7uYTj7x17TH"
"""The example key of the documentation: this node has none."""


def _common(node: Known) -> dict[str, Any]:
    common = {
        "build_version": CLIENT_VERSION,
        "complete_ledgers": ",".join(str(low) if low == high else f"{low}-{high}" for low, high in node.ranges),
        "io_latency_ms": 1,
        "network_id": node.network_id,
        "peers": 1,
        "pubkey_node": _NODE_KEY,
        "server_state": "full",
        "uptime": max(0, node.chain.now_ms - node.chain.ledgers[node.chain.first].made_ms) // 1000,
        "validation_quorum": 1,
    }
    return {**common, "amendment_blocked": True} if node.faults.blocked else common


def server_info(node: Known, _: Params) -> dict[str, Any]:
    """For people: amounts in XRP."""
    chain, ledger = node.chain, node.chain.ledgers[node.validated]
    load = max(chain.load, -(-chain.open_level // BASE_LEVEL))
    validated = {
        "age": max(0, chain.now_ms - ledger.made_ms) // 1000,
        "base_fee_xrp": BASE_FEE / DROPS_PER_XRP,
        "hash": ledger.hash,
        "reserve_base_xrp": BASE_RESERVE // DROPS_PER_XRP,
        "reserve_inc_xrp": OWNER_RESERVE / DROPS_PER_XRP,
        "seq": ledger.index,
    }
    last_close = {"converge_time_s": 3, "proposers": 1}
    return {"info": {**_common(node), "hostid": _HOST, "last_close": last_close, "load_factor": load, "validated_ledger": validated}}


def server_state(node: Known, _: Params) -> dict[str, Any]:
    """For programs: amounts in drops, load in 1/256."""
    chain, ledger = node.chain, node.chain.ledgers[node.validated]
    validated = {
        "base_fee": BASE_FEE,
        "close_time": ledger.close_time,
        "hash": ledger.hash,
        "reserve_base": BASE_RESERVE,
        "reserve_inc": OWNER_RESERVE,
        "seq": ledger.index,
    }
    load = {
        "load_base": BASE_LEVEL,
        "load_factor": max(chain.load * BASE_LEVEL, chain.open_level),
        "load_factor_fee_escalation": chain.open_level,
        "load_factor_fee_queue": BASE_LEVEL,
        "load_factor_fee_reference": BASE_LEVEL,
        "load_factor_server": chain.load * BASE_LEVEL,
    }
    last_close = {"converge_time": 3000, "proposers": 1}
    return {"state": {**_common(node), "last_close": last_close, **load, "validated_ledger": validated}}


def fee(node: Known, _: Params) -> dict[str, Any]:
    """What the open ledger asks."""
    chain = node.chain
    minimum = chain.minimum_fee
    return {
        "current_ledger_size": str(chain.open_count),
        "current_queue_size": str(len(chain.queue)),
        "drops": {
            "base_fee": str(BASE_FEE),
            "median_fee": str(fee_at(MEDIAN_LEVEL)),
            "minimum_fee": str(minimum),
            "open_ledger_fee": str(chain.open_fee),
        },
        "expected_ledger_size": str(chain.expected),
        "ledger_current_index": node.open_index,
        "levels": {
            "median_level": str(MEDIAN_LEVEL),
            "minimum_level": str(level_of(minimum)),
            "open_ledger_level": str(max(chain.open_level, level_of(minimum))),
            "reference_level": str(BASE_LEVEL),
        },
        "max_queue_size": str(LEDGERS_AHEAD * chain.expected),
    }


METHODS: Final[Mapping[str, Callable[[Known, Params], dict[str, Any]]]] = {
    "ping": lambda _node, _params: {},
    "server_info": server_info,
    "server_state": server_state,
    "fee": fee,
}
