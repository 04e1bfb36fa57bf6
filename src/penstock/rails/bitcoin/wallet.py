"""What a hot address holds, from a watch-only wallet that the rail makes in each node.

The node's own index of all unspent outputs knows no addresses: asking it for ours (`scantxoutset`) reads all of it, for minutes. A descriptor
wallet without private keys (`addr(...)`) follows one address as blocks come in, on a pruned node too. It is made where it is missing, and
looks back to the network's `watch_from_s` once; meanwhile the node says that it scans. Should the node be stopped while it does, run
`rescanblockchain`. `walletbroadcast=0` is good advice for such a node: what is sent, and when, is for us to say.

The wallet only tells which transactions matter. Amounts and owners are read from their bytes, whose hash is their id; what a coin held can
neither be invented nor rounded. https://developer.bitcoin.org/reference/rpc/#wallet-rpcs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.core.intent import Resource
from penstock.core.latest import Latest
from penstock.core.money import Network
from penstock.rails.base import NodeUnreachable
from penstock.rails.bitcoin.codec import Decoded, InvalidTransaction, decode
from penstock.rails.bitcoin.script import script_of_sender
from penstock.rails.bitcoin.talk import METHOD_UNKNOWN, block_hash, found, height, raw_bytes
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes, mapping

WALLET_NOT_FOUND: Final = -18
ALREADY_LOADED: Final = -35
ENTRIES_MAX: Final = 20_000
COINS_MAX: Final = 400
"""Most coins that are told of, the largest first; the balance counts all."""
REMEMBERED_MAX: Final = 5_000
FETCHED_AT_ONCE: Final = 10
TRIES: Final = 3
SCAN_MARGIN_S: Final = 7_200
"""Core looks through blocks from two hours before a descriptor's birth on (TIMESTAMP_WINDOW)."""
WATCH_FROM_S: Final = 1_767_225_600
"""2026-01-01: no hot address of this software is older."""


class NoWallet(NodeUnreachable):
    """The node keeps no wallets at all."""


@dataclass(frozen=True, slots=True)
class Purse:
    """What one node says that an address held at the end of a block, and which of those coins nothing spends by now."""

    coins: frozenset[Resource]
    free: frozenset[Resource]

    @property
    def units(self) -> int:
        """Satoshi in all."""
        return sum(coin.units for coin in self.coins)


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a wallet lists: unspent outpoints, transactions after the block, and those of them that spend ours."""

    unspent: frozenset[tuple[str, int]]
    since: frozenset[str]
    sends: frozenset[str]


def wallet_path(address: str) -> str:
    """Where a node answers for the wallet of an address."""
    return f"/wallet/penstock-{address}"


class Wallets:
    """The watch-only wallets of one network's nodes."""

    def __init__(self, network: Network, nodes: Nodes) -> None:
        self._network = network
        self._nodes = nodes
        self._since_s = 0 if network.is_test else int(network.param("watch_from_s", WATCH_FROM_S))
        self._ready: set[tuple[str, str]] = set()
        self._known: Latest[str, Decoded] = Latest(REMEMBERED_MAX)

    async def purse(self, node: Node, address: str, block: int, hash_: str) -> Purse:
        """What the address held at the end of this block. Raises NodeUnreachable, NoWallet for a node that keeps none."""
        await self._make_ready(node, address)
        try:
            for _ in range(TRIES):
                listed = await self._list(node, address, block, hash_)
                if listed is not None:
                    return await self._purse(node, address, listed)
            raise NodeUnreachable(f"{node.name}: blocks come faster than its wallet lists")
        except ValueError as error:
            raise NodeUnreachable(f"{node.name} gave no usable list of coins: {error}") from error

    # Making the wallet

    async def _make_ready(self, node: Node, address: str) -> None:
        if (node.name, address) in self._ready:
            return
        try:
            await self._open(node, address)
            await self._import(node, address)
        except ValueError as error:
            raise NodeUnreachable(f"{node.name} gave no usable answer of its wallet: {error}") from error
        self._ready.add((node.name, address))

    async def _open(self, node: Node, address: str) -> None:
        name = wallet_path(address).rpartition("/")[2]
        names = await self._one(node, Call("listwallets"))
        if isinstance(names, Fault):
            if names.code == METHOD_UNKNOWN:
                raise NoWallet(f"{node.name} keeps no wallets, so it cannot tell what an address holds")
            raise BadAnswer(names.words)
        if isinstance(names, list) and name in names:
            return
        loaded = await self._one(node, Call("loadwallet", (name, True)))
        if isinstance(loaded, Fault) and loaded.code == WALLET_NOT_FOUND:
            # Name, no private keys, blank, no passphrase, coins may be reused, descriptors, load it with the node.
            loaded = await self._one(node, Call("createwallet", (name, True, True, "", False, True, True)))
        if isinstance(loaded, Fault) and loaded.code != ALREADY_LOADED:
            raise BadAnswer(loaded.words)

    async def _import(self, node: Node, address: str) -> None:
        path = wallet_path(address)
        info = mapping(found(await self._one(node, Call("getwalletinfo", path=path))))
        if info.get("private_keys_enabled") is not False:
            raise BadAnswer("a wallet of our name holds private keys, which has no business in a node")
        if info.get("scanning") not in (False, None):
            raise BadAnswer("its wallet still scans old blocks for the hot address")
        descriptors = await self._one(node, Call("listdescriptors", path=path))
        if isinstance(descriptors, dict) and f"addr({address})" in str(descriptors.get("descriptors")):
            return
        await self._check_blocks(node)
        described = mapping(found(await self._one(node, Call("getdescriptorinfo", (f"addr({address})",)))))
        descriptor = described.get("descriptor")
        if not isinstance(descriptor, str) or not descriptor.startswith(f"addr({address})#"):
            raise BadAnswer("another descriptor than was asked for")
        request = {"desc": descriptor, "timestamp": self._since_s, "label": "penstock"}
        results = await self._one(node, Call("importdescriptors", ([request],), path=path))
        if not isinstance(results, list) or len(results) != 1 or mapping(results[0]).get("success") is not True:
            said = results.words if isinstance(results, Fault) else str(results)[:160]
            raise BadAnswer(f"it did not take the hot address into its wallet: {said}")

    async def _check_blocks(self, node: Node) -> None:
        """A pruned node takes a descriptor also when it has not the blocks to look through, and would then know too little for ever."""
        chain = mapping(found(await self._one(node, Call("getblockchaininfo"))))
        if chain.get("pruned") is not True:
            return
        oldest = block_hash(found(await self._one(node, Call("getblockhash", (height(chain.get("pruneheight")),)))))
        time_s = mapping(found(await self._one(node, Call("getblockheader", (oldest,))))).get("time")
        if type(time_s) is not int or time_s > self._since_s - SCAN_MARGIN_S:
            raise BadAnswer("it is pruned and has not the blocks since watch_from_s of the network, from which coins are looked for")

    async def _one(self, node: Node, call: Call) -> Any | Fault:
        (answer,) = await self._nodes.ask(node, [call])
        return answer

    # Reading it

    async def _list(self, node: Node, address: str, block: int, hash_: str) -> _Listed | None:
        """None when a block came in between."""
        best, at = await self._nodes.ask(node, [Call("getbestblockhash"), Call("getblockhash", (block,))])
        if block_hash(_good(at)) != hash_:
            raise BadAnswer("it is on another branch than the other nodes")
        path = wallet_path(address)
        calls = [
            Call("listunspent", (1, 9_999_999, [address], True), path),
            Call("listsinceblock", (hash_, 1, True, False, True), path),  # change too: a cancel has nothing else,
        ]
        unspent, since = await self._nodes.ask(node, calls)
        if any(isinstance(answer, Fault) and answer.code == WALLET_NOT_FOUND for answer in (unspent, since)):
            self._ready.discard((node.name, address))
        since = mapping(_good(since))
        newer = _entries(since.get("transactions"))
        # What lost its coins to a block is no spender; what took them is in the list.
        sends = [entry for entry in newer if entry.get("category") == "send" and not _conflicted(entry)]
        listed = _Listed(
            unspent=frozenset((block_hash(entry.get("txid")), height(entry.get("vout"))) for entry in _entries(_good(unspent))),
            since=frozenset(block_hash(entry.get("txid")) for entry in newer),
            sends=frozenset(block_hash(entry.get("txid")) for entry in sends),
        )
        return listed if block_hash(since.get("lastblock")) == block_hash(_good(best)) else None

    async def _purse(self, node: Node, address: str, listed: _Listed) -> Purse:
        """What is unspent and older than what came since, and what that spent and was older too."""
        script = script_of_sender(address, self._network.chain_id)
        sends = await self._fetch(node, address, listed.sends)
        spent = {outpoint for decoded in sends.values() for outpoint in _outpoints(decoded)}
        old = {outpoint for outpoint in listed.unspent | spent if outpoint[0] not in listed.since}
        sources = await self._fetch(node, address, {txid for txid, _ in old})
        coins = {outpoint: coin for outpoint in old if (coin := _coin(outpoint, sources, script)) is not None}
        largest = sorted((o for o in coins if o in listed.unspent and o not in spent), key=lambda o: (-coins[o].units, o))[:COINS_MAX]
        calls = [Call("gettxout", (txid, index, True)) for txid, index in largest]
        shown = await self._nodes.ask(node, calls) if calls else []
        free = [coins[outpoint] for outpoint, answer in zip(largest, shown, strict=True) if isinstance(answer, dict)]
        return Purse(frozenset(coins.values()), frozenset(free))

    async def _fetch(self, node: Node, address: str, txids: frozenset[str] | set[str]) -> dict[str, Decoded]:
        """The wallet's transactions with these ids; those it does not have are none of ours."""
        got = {txid: self._known[txid] for txid in txids if txid in self._known}
        missing = sorted(txids - got.keys())
        for start in range(0, len(missing), FETCHED_AT_ONCE):
            part = missing[start : start + FETCHED_AT_ONCE]
            answers = await self._nodes.ask(node, [Call("gettransaction", (txid, True), wallet_path(address)) for txid in part])
            for txid, answer in zip(part, answers, strict=True):
                said = found(answer)
                if said is not None:
                    got[txid] = self._known[txid] = _decoded(txid, mapping(said))
        return got


def _decoded(txid: str, answer: Mapping[str, Any]) -> Decoded:
    try:
        decoded = decode(raw_bytes(answer.get("hex")))
    except InvalidTransaction as error:
        raise BadAnswer(str(error)) from error
    if decoded.txid != txid:
        raise BadAnswer("other bytes than those of the transaction asked for")
    return decoded


def _coin(outpoint: tuple[str, int], sources: Mapping[str, Decoded], script: bytes) -> Resource | None:
    """The coin, when it is ours."""
    txid, index = outpoint
    outputs = sources[txid].outputs() if txid in sources else []
    if index >= len(outputs) or outputs[index][0] != script:
        return None
    return Resource(f"{txid}:{index}", outputs[index][1])


def _outpoints(decoded: Decoded) -> list[tuple[str, int]]:
    return [(spent.txid.hex(), spent.vout) for spent in decoded.transaction.vin]


def _conflicted(entry: Mapping[str, Any]) -> bool:
    confirmations = entry.get("confirmations")
    if type(confirmations) is not int:
        raise BadAnswer("no number of confirmations")
    return confirmations < 0


def _entries(value: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) > ENTRIES_MAX:
        raise BadAnswer("no list, or one longer than is believed")
    return [mapping(entry) for entry in value]


def _good(answer: Any) -> Any:
    if isinstance(answer, Fault):
        raise BadAnswer(answer.words)
    return answer
