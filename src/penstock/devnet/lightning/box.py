"""Lightning as the box knows it: the world and the addresses of its one node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.devnet.box import COUNT_MAX, NODES_MAX, Arguments, BadCommand, Keep, Verb
from penstock.devnet.lightning.channel import MSAT
from penstock.devnet.lightning.node import LightningNode
from penstock.devnet.lightning.recipient import EXPIRY_S
from penstock.devnet.lightning.world import CHAIN_ID, REASONS, SATOSHI_MAX, LightningWorld

AMOUNT_MAX: Final = SATOSHI_MAX * MSAT
PARTS_MAX: Final = 16
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class LightningBox:
    """`devnet.box.BoxNetwork` for Lightning. Units are millisatoshi; the address that holds them is the node's identity."""

    world: LightningWorld
    nodes: tuple[LightningNode, ...]

    @property
    def name(self) -> str:
        """As the wire calls it."""
        return self.world.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """The node that pays is pinned, and its address says which program it is and what opens it."""
        return {"chain_id": CHAIN_ID, "node_id": self.world.identity, "rpc_url": "lnd+{url}?macaroon=" + self.world.macaroon}

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """The recipient, what the network is like, and what happens to the node."""
        return {
            "invoice": self._invoice,
            "settled": self._settled,
            "channel": self._channel,
            "hold": self._hold,
            "release": self._release,
            "fail": self._fail,
            "partial": self._partial,
            "route": self._route,
            "receiver": self._receiver,
            "restart": self._restart,
        }

    def tick(self) -> None:
        """Let happen what is due by now."""
        self.world.tick()

    def status(self) -> dict[str, Any]:
        """Height, channels, payments."""
        world = self.world
        states = [payment.status for payment in world.payments.values()]
        return {
            "chain_id": CHAIN_ID,
            "head": world.height,
            "final": world.height,
            "block_ms": world.block_ms,
            "node_id": world.identity,
            "owned_msat": str(world.owned_msat()),
            "channels": len(world.channels),
            "waiting": states.count("IN_FLIGHT") + states.count("INITIATED"),
            "payments": {state: states.count(state) for state in sorted(set(states))},
            "route_fee_base_msat": world.weather.fee_base_msat * world.weather.spike,
            "faucet": world.peer,
            "tokens": {},
        }

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        """Open a channel in which so many millisatoshi are the node's; its funding output. Raises ValueError."""
        self._check(address, contract)
        return self.world.open_channel(units).channel_point

    def holding(self, address: str, contract: str | None = None) -> int:
        """Millisatoshi of the node's in all channels; what is in flight is nobody's. Raises ValueError."""
        self._check(address, contract)
        return self.world.owned_msat()

    def _check(self, address: str, contract: str | None) -> None:
        if contract is not None or address != self.world.identity:
            raise ValueError(f"the only holder here is the node, {self.world.identity}, and there are no tokens")

    def mine(self, count: int = 1) -> int:
        """The block counter below rises."""
        return self.world.mine(count)

    def set_block_time(self, block_ms: int) -> None:
        """Its pace."""
        self.world.set_block_time(block_ms)

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Raises ValueError: there are no blocks of its own."""
        del depth, transactions
        raise ValueError("a preimage cannot be undone, so Lightning has no forks")

    def forget(self, txid: str) -> bool:
        """Lose the node's record of a payment, as if it had been deleted; parts in flight go on."""
        return self.world.forget(txid)

    def spike(self, factor: int) -> None:
        """Routing costs this much more. Raises ValueError."""
        if not 1 <= factor <= COUNT_MAX:
            raise ValueError(f"a factor is from 1 to {COUNT_MAX}")
        self.world.weather.spike = factor

    def _invoice(self, given: Arguments) -> dict[str, Any]:
        given.only("units expiry_s memo")
        expiry_s = given.number("expiry_s", EXPIRY_S, most=2**31)
        asked = self.world.recipient.invoice(
            given.number("units", 0, most=AMOUNT_MAX), now_ms=self.world.now_ms, expiry_s=expiry_s, memo=given.text("memo", "")
        )
        return {"invoice": asked.text, "payment_hash": asked.payment_hash}

    def _settled(self, given: Arguments) -> dict[str, Any]:
        asked = self.world.recipient.asked(given.only("payment_hash").text("payment_hash"))
        if asked is None:
            raise BadCommand("the recipient has no invoice with this hash")
        return {"settled": asked.times_taken > 0, "times": asked.times_taken, "received": str(asked.taken_msat)}

    def _channel(self, given: Arguments) -> dict[str, Any]:
        given.only("units opener")
        opener = given.text("opener", "us")
        if opener not in {"us", "peer"}:
            raise BadCommand("'opener' is one of us, peer")
        return {"channel_point": self.world.open_channel(given.number("units", most=AMOUNT_MAX), ours=opener == "us").channel_point}

    def _hold(self, given: Arguments) -> dict[str, Any]:
        self.world.weather.hold = given.only("count").number("count", 1, most=COUNT_MAX)
        return {"hold": self.world.weather.hold}

    def _release(self, given: Arguments) -> dict[str, Any]:
        given.only("payment_hash how")
        how = given.text("how", "settle")
        if how not in {"settle", "fail"}:
            raise BadCommand("'how' is one of settle, fail")
        return {"released": self.world.release(given.text("payment_hash"), settle=how == "settle")}

    def _fail(self, given: Arguments) -> dict[str, Any]:
        given.only("count reason")
        reason = given.text("reason", "NO_ROUTE")
        if reason not in REASONS:
            raise BadCommand(f"'reason' is one of {', '.join(REASONS)}")
        weather = self.world.weather
        weather.fail, weather.reason = given.number("count", 1, most=COUNT_MAX), reason
        return {"fail": weather.fail, "reason": reason}

    def _partial(self, given: Arguments) -> dict[str, Any]:
        self.world.weather.partial = given.only("count").number("count", 1, most=COUNT_MAX)
        return {"partial": self.world.weather.partial}

    def _route(self, given: Arguments) -> dict[str, Any]:
        given.only("fee_base_msat fee_ppm latency_ms parts")
        now = self.world.weather
        self.world.weather = replace(
            now,
            fee_base_msat=given.number("fee_base_msat", now.fee_base_msat, most=AMOUNT_MAX),
            fee_ppm=given.number("fee_ppm", now.fee_ppm, most=10**6),
            latency_ms=given.number("latency_ms", now.latency_ms, most=DAY_MS * 30),
            parts=max(1, given.number("parts", now.parts, most=PARTS_MAX)),
        )
        return self.status()

    def _receiver(self, given: Arguments) -> dict[str, Any]:
        given.only("online greedy")
        recipient = self.world.recipient
        recipient.online = bool(given.number("online", int(recipient.online), most=1))
        recipient.greedy = bool(given.number("greedy", int(recipient.greedy), most=1))
        return {"online": recipient.online, "greedy": recipient.greedy}

    def _restart(self, given: Arguments) -> dict[str, Any]:
        self.world.restart(given.only("down_ms").number("down_ms", 1_000, most=DAY_MS * 30))
        return {"down_until_ms": self.world.down_until_ms}


def network_of(world: LightningWorld, *, nodes: int = 2) -> LightningBox:
    """A network whose addresses tell the truth for now. Raises ValueError for a number of them out of bounds."""
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a network has from 1 to {NODES_MAX} nodes")
    return LightningBox(world, tuple(LightningNode(world) for _ in range(nodes)))
