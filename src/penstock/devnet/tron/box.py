"""A TRON network as the box knows it: the chain and the nodes that tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.devnet.box import NODES_MAX, Arguments, BadCommand, Keep, Verb
from penstock.devnet.evm.contracts import balance_slot, slots_of
from penstock.devnet.tron.chain import FAUCET_STAKED_SUN, TronChain
from penstock.devnet.tron.node import TronNode
from penstock.devnet.tron.process import Rejected
from penstock.devnet.tron.tokens import CONTRACT, behaviour_of
from penstock.devnet.tron.transaction import account_of

SLOTS_MAX: Final = 100_000
FACTOR_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TronBox:
    """`devnet.box.BoxNetwork` for one TRON network."""

    chain: TronChain
    nodes: tuple[TronNode, ...]

    @property
    def name(self) -> str:
        """As the wire calls it: TRX."""
        return self.chain.spec.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """The chain id says all; both halves of a node are at one address."""
        return {"chain_id": self.chain.spec.chain_id}

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Staked resources, solidification, missed blocks, and what tokens do."""
        return {
            "stake": lambda given: self._stake(given, back=False),
            "unstake": lambda given: self._stake(given, back=True),
            "stall": self._stall,
            "miss": self._miss,
            "behave": self._behave,
            "energy_factor": self._energy_factor,
        }

    def tick(self) -> None:
        """Make the blocks that are due by now."""
        self.chain.tick()

    def status(self) -> dict[str, Any]:
        """Heights, prices, faucet, tokens."""
        chain = self.chain
        return {
            "chain_id": chain.spec.chain_id,
            "head": chain.head.number,
            "final": chain.solid,
            "stalled": chain.stalled,
            "block_ms": chain.block_ms,
            "energy_sun": chain.prices.energy,
            "byte_sun": chain.prices.byte,
            "waiting": len(chain.pool),
            "faucet": chain.faucet,
            "tokens": {token.symbol: self._token(address) for address, token in chain.spec.tokens.items()},
        }

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        """Sun, or base units of a token. Raises ValueError."""
        try:
            return self.chain.fund(address, units) if contract is None else self.chain.fund_token(contract, address, units)
        except Rejected as error:
            raise ValueError(str(error)) from error

    def holding(self, address: str, contract: str | None = None) -> int:
        """Base units at the head. Raises ValueError."""
        state, account = self.chain.state(self.chain.head.number), account_of(address)
        if state is None:
            raise AssertionError("the state of the newest block is always there")
        if contract is None:
            return state.account(account).balance
        return state.slot(balance_slot(account_of(contract), account))

    def mine(self, count: int = 1) -> int:
        """Make blocks now."""
        return self.chain.mine(count).number

    def set_block_time(self, block_ms: int) -> None:
        """Another pace; 0 for only on demand."""
        self.chain.set_block_time(block_ms)

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Let another branch win; never deeper than what is solidified. Raises ValueError."""
        return self.chain.fork(depth, transactions).number

    def forget(self, txid: str) -> bool:
        """Drop a transaction from the pool."""
        return self.chain.forget(txid)

    def spike(self, factor: int) -> None:
        """Energy and bytes cost so many times the usual until another spike. Raises ValueError."""
        self.chain.spike(factor)

    def _token(self, address: str) -> dict[str, Any]:
        token, contract = self.chain.spec.tokens[address], account_of(address)
        state = self.chain.state(self.chain.head.number)
        word = 0 if state is None else state.slot((contract, slots_of(CONTRACT)["behaviour"]))
        return {
            "contract": address,
            "decimals": token.decimals,
            "behaviour": behaviour_of(word),
            "energy_factor": self.chain.factor(contract),
        }

    def _stake(self, given: Arguments, *, back: bool) -> dict[str, Any]:
        given.only("address resource sun")
        resource = given.text("resource", "energy")
        if resource not in {"energy", "bandwidth"}:
            raise BadCommand("'resource' is one of energy, bandwidth")
        sun = given.number("sun", most=FAUCET_STAKED_SUN)
        try:
            return {"txid": self.chain.stake(given.text("address"), sun, energy=resource == "energy", back=back)}
        except Rejected as error:
            raise BadCommand(str(error)) from error

    def _stall(self, given: Arguments) -> dict[str, Any]:
        self.chain.stall(on=bool(given.only("on").number("on", 1, most=1)))
        return self.status()

    def _miss(self, given: Arguments) -> dict[str, Any]:
        self.chain.miss(given.only("slots").number("slots", 1, most=SLOTS_MAX))
        return self.status()

    def _behave(self, given: Arguments) -> dict[str, Any]:
        given.only("contract behaviour")
        try:
            return {"txid": self.chain.behave(given.text("contract"), given.text("behaviour"))}
        except Rejected as error:
            raise BadCommand(str(error)) from error

    def _energy_factor(self, given: Arguments) -> dict[str, Any]:
        given.only("contract factor")
        self.chain.set_factor(given.text("contract"), given.number("factor", most=FACTOR_MAX))
        return self.status()


def network_of(chain: TronChain, *, nodes: int = 2) -> TronBox:
    """A network whose nodes tell the truth for now. Raises ValueError for a number of nodes out of bounds."""
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a network has from 1 to {NODES_MAX} nodes")
    return TronBox(chain, tuple(TronNode(chain) for _ in range(nodes)))
