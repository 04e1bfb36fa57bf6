"""A node: the network as it is told over Bitcoin Core's JSON-RPC, truly or, where `BitcoinFaults` say so, falsely.

Several nodes may serve one network, each with faults and wallets of its own. No socket here: the server and a simulation call the same
`answer`. Method by method as in https://bitcoincore.org/en/doc/29.0.0/, error texts and codes as Core 29 has them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from penstock.devnet.bitcoin import render, rpc
from penstock.devnet.bitcoin.blocks import BITS, TARGET, Block
from penstock.devnet.bitcoin.chain import CHAIN_ID, BitcoinChain
from penstock.devnet.bitcoin.kernel import BadBytes
from penstock.devnet.bitcoin.rpc import (
    INVALID_ADDRESS_OR_KEY,
    INVALID_PARAMETER,
    MISC_ERROR,
    Function,
    Number,
    RpcError,
    btc,
    flag,
    hash_of,
    listed,
    mapped,
    text,
    whole,
)
from penstock.devnet.bitcoin.send import Sending
from penstock.devnet.bitcoin.transaction import Tx, address_of, kind_of, read, script_of
from penstock.devnet.bitcoin.view import Found, View
from penstock.devnet.bitcoin.wallet import Wallet
from penstock.devnet.bitcoin.wallet_methods import WalletMethods
from penstock.devnet.box import Broken, Faults, Request, Response

VERSION: Final = 290_000
USER_AGENT: Final = "/Satoshi:29.0.0(penstock-devnet/1; a network in a box, not a real network)/"
PROTOCOL_VERSION: Final = 70_016
TARGET_BLOCKS_MAX: Final = 1_008
NAMES: Final[Mapping[int, tuple[str, str]]] = {
    3652501241: ("main", "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
    118034699: ("test", "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"),
    675223068: ("testnet4", "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
    1087308554: ("signet", "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
}
"""What getblockchaininfo calls other networks, and their first blocks: what a node on the wrong network would say.

https://github.com/bitcoin/bitcoin/blob/29.x/src/kernel/chainparams.cpp
"""


@dataclass(slots=True)
class BitcoinFaults(Faults):
    """`no_estimate`: fee estimates are refused, as by a node that just started. `syncing`: it knows that there are newer blocks than those
    it has, and says so. `fee_percent_shift` is added to 100 % of every fee estimate.
    """

    no_estimate: bool = False
    syncing: bool = False
    fee_percent_shift: int = 0


class BitcoinNode:
    """One node of a network, with a transaction index and its own wallets."""

    def __init__(self, chain: BitcoinChain, faults: BitcoinFaults | None = None) -> None:
        self.chain = chain
        self.faults = faults or BitcoinFaults()
        self.wallets: dict[str, Wallet] = {}
        self._methods: dict[str, Function] = {
            "getblockchaininfo": self._blockchain_info,
            "getblockcount": lambda: self.view.height,
            "getbestblockhash": lambda: self.view.tip.hash,
            "getblockhash": self._block_hash,
            "getblockheader": self._block_header,
            "getblock": self._block,
            "getchaintips": self._chain_tips,
            "getmempoolinfo": self._mempool_info,
            "getrawmempool": self._raw_mempool,
            "getmempoolentry": self._mempool_entry,
            "gettxout": self._txout,
            "gettxspendingprevout": self._spending,
            "getrawtransaction": self._raw_transaction,
            "decoderawtransaction": self._decode,
            "estimatesmartfee": self._estimate,
            "getnetworkinfo": self._network_info,
            "getconnectioncount": lambda: 8,
            "getindexinfo": lambda: {"txindex": {"synced": True, "best_block_height": self.view.height}},
            "validateaddress": _validate_address,
            "generatetoaddress": self._generate,
            "invalidateblock": self._invalidate,
            "reconsiderblock": self._reconsider,
            "uptime": lambda: max(0, self._now_s() - chain.born_ms // 1_000),
            "help": self._help,
            **Sending(self).methods,
        }

    @property
    def view(self) -> View:
        """The network as this node knows it now."""
        return View(self.chain, lag=self.faults.lag, blind=self.faults.blind)

    def answer(self, request: Request) -> Response:
        """JSON-RPC over HTTP, a wallet's at /wallet/NAME. Raises Broken when no answer comes."""
        if self.faults.down:
            raise Broken(self.faults.down)
        if request.method != "POST":
            return Response(b"JSONRPC server handles only POST requests", 405, "text/plain")
        path = request.path.rstrip("/")
        if path and not path.startswith("/wallet/"):
            return Response(b"", 404, "text/plain")
        if not _may_ask(request.headers.get("authorization")):
            return Response(b"", 401, "text/plain")
        self.chain.tick()
        wallet = unquote(path.removeprefix("/wallet/")) if path else None
        return rpc.answer(request.body, lambda method, params: self._dispatch(method, params, wallet))

    def call(self, method: str, *params: Any, wallet: str | None = None) -> Any:
        """The result of one call, with amounts as `rpc.Number`. Raises RpcError, or Broken when no answer comes."""
        if self.faults.down:
            raise Broken(self.faults.down)
        self.chain.tick()
        return self._dispatch(method, list(params), wallet)

    def _dispatch(self, method: str, params: Any, wallet: str | None) -> Any:
        functions = self._methods if method in self._methods else WalletMethods(self, wallet).methods
        return rpc.invoke(method, functions, params)

    def _now_s(self) -> int:
        return self.chain.now_ms() // 1_000

    def _help(self, command: Any = "") -> str:
        known = self._methods | WalletMethods(self, None).methods
        if command:
            return rpc.usage(command, known[command]) if command in known else f"help: unknown command: {command}"
        return "\n".join(rpc.usage(name, function) for name, function in sorted(known.items()))

    # Blocks

    def _blockchain_info(self) -> dict[str, Any]:
        view = self.view
        tip = view.tip
        return {
            "chain": self._claim()[0],
            "blocks": view.height,
            "headers": self.chain.blocks.head.height if self.faults.syncing else view.height,
            "bestblockhash": tip.hash,
            "bits": f"{BITS:08x}",
            "target": f"{TARGET:064x}",
            "difficulty": render.DIFFICULTY,
            "time": tip.time,
            "mediantime": tip.median_time,
            "verificationprogress": Number("0.5") if self.faults.syncing else 1,
            "initialblockdownload": self.faults.syncing,
            "chainwork": f"{tip.work:064x}",
            "size_on_disk": tip.size * (view.height + 1),
            "pruned": False,
            "warnings": [],
        }

    def _claim(self) -> tuple[str, str]:
        """The network that it says it serves, and that one's first block."""
        wrong = self.faults.chain_id
        if wrong in {0, CHAIN_ID}:
            return "regtest", self.chain.blocks.hash_at(0)
        return NAMES.get(wrong) or ("signet", hashlib.sha256(str(wrong).encode()).hexdigest())

    def _block_hash(self, height: Any) -> str:
        number = whole(height)
        if not 0 <= number <= self.view.height:
            raise RpcError(INVALID_PARAMETER, "Block height out of range")
        return self.chain.blocks.hash_at(number) if number else self._claim()[1]

    def known_block(self, block_hash: Any, name: str = "blockhash") -> Block:
        """The block of this hash. Raises RpcError."""
        given = hash_of(block_hash, name)
        block = self.view.block(given)
        if block is None:
            if self.chain.blocks.was_pruned(given):
                raise RpcError(MISC_ERROR, "Block not available (pruned data)")
            raise RpcError(INVALID_ADDRESS_OR_KEY, "Block not found")
        return block

    def _block_header(self, blockhash: Any, verbose: Any = True) -> Any:  # noqa: FBT002  JSON-RPC passes it by position
        block = self.known_block(blockhash)
        return render.header(self.view, block) if flag(verbose) else block.header.hex()

    def _block(self, blockhash: Any, verbosity: Any = 1) -> Any:
        block = self.known_block(blockhash)
        level = int(verbosity) if isinstance(verbosity, bool) else whole(verbosity)
        return block.raw.hex() if level <= 0 else render.block_of(self.view, block, min(level, 3))

    def _chain_tips(self) -> list[dict[str, Any]]:
        view = self.view
        tips = [{"height": view.height, "hash": view.tip.hash, "branchlen": 0, "status": "active"}]
        for block in self.chain.blocks.stale_tips():
            status = "invalid" if self.chain.blocks.is_invalid(block) else "valid-fork"
            length = len(self.chain.blocks.branch(block))
            tips.append({"height": block.height, "hash": block.hash, "branchlen": length, "status": status})
        return tips

    def _generate(self, nblocks: Any, address: Any, maxtries: Any = 1_000_000) -> list[str]:
        whole(maxtries)
        try:
            script = script_of(text(address))
        except ValueError as error:
            raise RpcError(INVALID_ADDRESS_OR_KEY, "Error: Invalid address") from error
        return [block.hash for block in self.chain.mine(whole(nblocks, least=0, most=10_000), script=script)]

    def _invalidate(self, blockhash: Any) -> None:
        block = self.known_block(blockhash)
        if not block.height:
            raise RpcError(INVALID_PARAMETER, "Cannot invalidate genesis block")
        self._shape(self.chain.invalidate, block)

    def _reconsider(self, blockhash: Any) -> None:
        self._shape(self.chain.reconsider, self.known_block(blockhash))

    @staticmethod
    def _shape(change: Function, block: Block) -> None:
        try:
            change(block)
        except ValueError as error:
            raise RpcError(MISC_ERROR, str(error)) from error

    # Transactions

    def _found(self, txid: str, block: Block | None) -> Found:
        if block is not None:
            places = [place for place, tx in enumerate(block.transactions) if tx.txid == txid]
            if not places or self.faults.blind:
                raise RpcError(
                    INVALID_ADDRESS_OR_KEY, "No such transaction found in the provided block. Use gettransaction for wallet transactions."
                )
            return Found(block.transactions[places[0]], block, places[0])
        found = self.view.find(txid)
        if found is None:
            raise RpcError(INVALID_ADDRESS_OR_KEY, "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.")
        return found

    def _raw_transaction(self, txid: Any, verbosity: Any = 0, blockhash: Any = None) -> Any:
        wanted = hash_of(txid, "parameter 1")
        if wanted == self.chain.blocks.first.transactions[0].txid:
            words = "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved"
            raise RpcError(INVALID_ADDRESS_OR_KEY, words)
        level = int(verbosity) if isinstance(verbosity, bool) else whole(verbosity)
        within = None
        if blockhash is not None:
            within = self.view.block(hash_of(blockhash, "parameter 3"))
            if within is None:
                raise RpcError(INVALID_ADDRESS_OR_KEY, "Block hash not found")
        found = self._found(wanted, within)
        return self._told(found, level, asked=within) if level > 0 else found.tx.raw.hex()

    def _told(self, found: Found, level: int, *, asked: Block | None) -> dict[str, Any]:
        block, view = found.block, self.view
        fields: dict[str, Any] = {} if asked is None else {"in_active_chain": view.depth(asked) > 0}
        spent = block.spent[found.position] if block is not None else ()
        fee = block.fee(found.position) if block is not None and found.position and level > 1 else None
        fields |= render.transaction(found.tx, spent=spent, fee=fee, prevouts=level > 1)
        if block is not None:
            fields["blockhash"] = block.hash
            confirmed = view.depth(block) > 0
            fields |= (
                {"confirmations": view.depth(block), "time": block.time, "blocktime": block.time} if confirmed else {"confirmations": 0}
            )
        return fields

    def _decode(self, hexstring: Any) -> dict[str, Any]:
        fields = render.transaction(self.decoded(hexstring))
        return {key: value for key, value in fields.items() if key != "hex"}

    @staticmethod
    def decoded(hexstring: Any) -> Tx:
        """The transaction in hexadecimal text. Raises RpcError."""
        try:
            return read(bytes.fromhex(text(hexstring)))
        except (ValueError, BadBytes) as error:
            words = "TX decode failed. Make sure the tx has at least one input."
            raise RpcError(rpc.DESERIALIZATION_ERROR, words) from error

    def _txout(self, txid: Any, n: Any, include_mempool: Any = True) -> Any:  # noqa: FBT002
        view, outpoint = self.view, (hash_of(txid, "txid"), whole(n, least=0))
        coin = view.coins.get(outpoint)
        if flag(include_mempool):
            coin = coin or view.waiting_coin(outpoint)
            if view.spender(outpoint) is not None:
                return None
        if coin is None:
            return None
        return {
            "bestblock": view.tip.hash,
            "confirmations": 0 if coin.height is None else view.height - coin.height + 1,
            "value": btc(coin.units),
            "scriptPubKey": render.script_pub_key(coin.script),
            "coinbase": coin.coinbase,
        }

    def _spending(self, outputs: Any) -> list[dict[str, Any]]:
        view, told = self.view, []
        if not listed(outputs):
            raise RpcError(INVALID_PARAMETER, "Invalid parameter, outputs are missing")
        for one in outputs:
            txid, number = hash_of(mapped(one).get("txid"), "txid"), whole(one.get("vout"))
            if number < 0:
                raise RpcError(INVALID_PARAMETER, "Invalid parameter, vout cannot be negative")
            spender = view.spender((txid, number))
            told.append({"txid": txid, "vout": number} | ({} if spender is None else {"spendingtxid": spender}))
        return told

    # Mempool and fees

    def _mempool_info(self) -> dict[str, Any]:
        entries, terms = list(self.view.waiting()), self.chain.mempool.terms
        return {
            "loaded": True,
            "size": len(entries),
            "bytes": sum(entry.vsize for entry in entries),
            "usage": sum(entry.tx.size + 1_000 for entry in entries),
            "total_fee": btc(sum(entry.fee for entry in entries)),
            "maxmempool": 300_000_000,
            "mempoolminfee": btc(max(terms.minimum, terms.relay)),
            "minrelaytxfee": btc(terms.relay),
            "incrementalrelayfee": btc(terms.incremental),
            "unbroadcastcount": 0,
            "fullrbf": True,
        }

    def _raw_mempool(self, verbose: Any = False, mempool_sequence: Any = False) -> Any:  # noqa: FBT002
        view = self.view
        if flag(verbose):
            return {entry.tx.txid: render.mempool_entry(self.chain.mempool, entry) for entry in view.waiting()}
        txids = [entry.tx.txid for entry in view.waiting()]
        return {"txids": txids, "mempool_sequence": len(self.chain.seen) + 1} if flag(mempool_sequence) else txids

    def _mempool_entry(self, txid: Any) -> dict[str, Any]:
        entry = self.view.entry(hash_of(txid, "txid"))
        if entry is None:
            raise RpcError(INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
        return render.mempool_entry(self.chain.mempool, entry)

    def _estimate(self, conf_target: Any, estimate_mode: Any = "economical") -> dict[str, Any]:
        target = whole(conf_target)
        if not 1 <= target <= TARGET_BLOCKS_MAX:
            raise RpcError(INVALID_PARAMETER, f"Invalid conf_target, must be between 1 and {TARGET_BLOCKS_MAX}")
        if text(estimate_mode).lower() not in {"unset", "economical", "conservative"}:
            raise RpcError(INVALID_PARAMETER, 'Invalid estimate_mode parameter, must be one of: "unset", "economical", "conservative"')
        target = max(target, 2)  # as Core answers: nobody can promise the very next block
        if self.faults.no_estimate:
            return {"errors": ["Insufficient data or no feerate found"], "blocks": target}
        rate = self.chain.market_fee(target) * max(0, 100 + self.faults.fee_percent_shift) // 100
        return {"feerate": btc(rate), "blocks": target}

    def _network_info(self) -> dict[str, Any]:
        terms = self.chain.mempool.terms
        return {
            "version": VERSION,
            "subversion": USER_AGENT,
            "protocolversion": PROTOCOL_VERSION,
            "localservices": "0000000000000c09",
            "localservicesnames": ["NETWORK", "WITNESS", "NETWORK_LIMITED", "P2P_V2"],
            "localrelay": True,
            "timeoffset": 0,
            "networkactive": True,
            "connections": 8,
            "connections_in": 0,
            "connections_out": 8,
            "networks": [],
            "relayfee": btc(terms.relay),
            "incrementalfee": btc(terms.incremental),
            "localaddresses": [],
            "warnings": [],
        }


def _may_ask(authorization: str | None) -> bool:
    """Any user with any password, and who brings none; what is no such header is refused."""
    if authorization is None:
        return True
    kind, _, given = authorization.partition(" ")
    try:
        return kind.lower() == "basic" and b":" in base64.b64decode(given, validate=True)
    except binascii.Error:
        return False


def _validate_address(address: Any) -> dict[str, Any]:
    try:
        script = script_of(text(address))
    except ValueError:
        return {"isvalid": False, "error_locations": [], "error": "Invalid or unsupported Segwit (Bech32) or Base58 encoding."}
    kind = kind_of(script)
    witness = kind.startswith("witness")
    fields: dict[str, Any] = {"isvalid": True, "address": address_of(script), "scriptPubKey": script.hex()}
    fields |= {"isscript": kind in {"scripthash", "witness_v0_scripthash", "witness_v1_taproot"}, "iswitness": witness}
    if witness:
        fields |= {"witness_version": script[0] - 0x50 if script[0] else 0, "witness_program": script[2:].hex()}
    return fields
