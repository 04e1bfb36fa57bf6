"""The wallet calls of a node, for the wallet that its path names: watch-only, as in https://bitcoincore.org/en/doc/29.0.0/ (Wallet)."""

from __future__ import annotations

from typing import Any, Final, Protocol

from penstock.devnet.bitcoin import rpc, wallet
from penstock.devnet.bitcoin.blocks import Block
from penstock.devnet.bitcoin.chain import BitcoinChain
from penstock.devnet.bitcoin.rpc import Function, RpcError, btc, flag, hash_of, listed, mapped, text, whole
from penstock.devnet.bitcoin.transaction import script_of
from penstock.devnet.bitcoin.view import Found, View
from penstock.devnet.bitcoin.wallet import Wallet

WALLETS_MAX: Final = 100
CONFIRMATIONS_MAX: Final = 9_999_999
WALLET_VERSION: Final = 169_900


class Holder(Protocol):
    """The node whose wallets these are."""

    chain: BitcoinChain
    wallets: dict[str, Wallet]

    @property
    def view(self) -> View:
        """The network as it knows it."""
        ...

    def known_block(self, block_hash: Any, name: str = ...) -> Block:
        """The block of this hash. Raises RpcError."""
        ...


class WalletMethods:
    """The methods as one request may call them; `name` is the wallet of its path, None without one."""

    def __init__(self, node: Holder, name: str | None) -> None:
        self._node = node
        self._name = name

    @property
    def methods(self) -> dict[str, Function]:
        """By name."""
        return {
            "listwallets": lambda: [one.name for one in self._node.wallets.values() if one.loaded],
            "createwallet": self._create,
            "loadwallet": self._load,
            "unloadwallet": self._unload,
            "getwalletinfo": self._info,
            "getbalances": self._balances,
            "getdescriptorinfo": self._descriptor_info,
            "importdescriptors": self._import,
            "listdescriptors": self._descriptors,
            "listunspent": self._unspent,
            "listsinceblock": self._since,
            "gettransaction": self._transaction,
        }

    # Wallets

    def _create(
        self,
        wallet_name: Any,
        disable_private_keys: Any = False,  # noqa: FBT002  JSON-RPC passes it by position
        blank: Any = False,  # noqa: FBT002
        passphrase: Any = "",
        avoid_reuse: Any = False,  # noqa: FBT002
        descriptors: Any = True,  # noqa: FBT002
        load_on_startup: Any = None,
        external_signer: Any = False,  # noqa: FBT002
    ) -> dict[str, Any]:
        name = text(wallet_name)
        if not flag(disable_private_keys):
            raise RpcError(rpc.WALLET_ERROR, "a box keeps no keys: a wallet here is made with disable_private_keys=true")
        if not flag(descriptors):
            raise RpcError(rpc.WALLET_ERROR, "BDB wallet creation is deprecated and will be removed in a future release.")
        if text(passphrase) or flag(external_signer) or flag(avoid_reuse):
            raise RpcError(rpc.WALLET_ERROR, "a box knows no passphrases, no external signers and no avoid_reuse")
        flag(blank)
        if load_on_startup is not None:
            flag(load_on_startup)
        if name in self._node.wallets:
            words = f"Failed to create database path '{name}'. Database already exists."
            raise RpcError(rpc.WALLET_ERROR, f"Wallet file verification failed. {words}")
        if len(self._node.wallets) >= WALLETS_MAX:
            raise RpcError(rpc.WALLET_ERROR, f"a box keeps {WALLETS_MAX} wallets a node")
        self._node.wallets[name] = Wallet(name)
        return {"name": name}

    def _load(self, filename: Any, load_on_startup: Any = None) -> dict[str, Any]:
        name = text(filename)
        if load_on_startup is not None:
            flag(load_on_startup)
        found = self._node.wallets.get(name)
        if found is None:
            words = f"Failed to load database path '{name}'. Path does not exist."
            raise RpcError(rpc.WALLET_NOT_FOUND, f"Wallet file verification failed. {words}")
        if found.loaded:
            raise RpcError(rpc.WALLET_ALREADY_LOADED, f'Wallet "{name}" is already loaded.')
        found.loaded = True
        return {"name": name}

    def _unload(self, wallet_name: Any = None, load_on_startup: Any = None) -> dict[str, Any]:
        if load_on_startup is not None:
            flag(load_on_startup)
        found = self._wallet() if wallet_name is None else self._loaded(text(wallet_name))
        found.loaded = False
        return {}

    def _wallet(self) -> Wallet:
        """The wallet that the request is for. Raises RpcError."""
        if self._name is not None:
            return self._loaded(self._name)
        loaded = [one for one in self._node.wallets.values() if one.loaded]
        if not loaded:
            words = "Load a wallet using loadwallet or create a new one with createwallet."
            raise RpcError(
                rpc.WALLET_NOT_FOUND, f"No wallet is loaded. {words} (Note: A default wallet is no longer automatically created)"
            )
        if len(loaded) > 1:
            words = "Please select which wallet to use by requesting the RPC through the /wallet/<walletname> URI path."
            raise RpcError(rpc.WALLET_NOT_SPECIFIED, f"Multiple wallets are loaded. {words}")
        return loaded[0]

    def _loaded(self, name: str) -> Wallet:
        found = self._node.wallets.get(name)
        if found is None or not found.loaded:
            raise RpcError(rpc.WALLET_NOT_FOUND, "Requested wallet does not exist or is not loaded")
        return found

    def _info(self) -> dict[str, Any]:
        one, view = self._wallet(), self._node.view
        trusted, pending, immature = self._sums(one, view)
        count = sum(1 for _ in one.since(view, -1))
        fields: dict[str, Any] = {
            "walletname": one.name,
            "walletversion": WALLET_VERSION,
            "format": "sqlite",
            "balance": btc(trusted),
            "unconfirmed_balance": btc(pending),
            "immature_balance": btc(immature),
            "txcount": count,
            "keypoolsize": 0,
            "keypoolsize_hd_internal": 0,
            "paytxfee": btc(0),
            "private_keys_enabled": False,
            "avoid_reuse": False,
            "scanning": False,
            "descriptors": True,
            "external_signer": False,
            "blank": not one.watched,
        }
        if one.birth:
            fields["birthtime"] = one.birth
        return fields | _processed(view)

    @staticmethod
    def _sums(one: Wallet, view: View) -> tuple[int, int, int]:
        """Satoshis that may be spent, that wait in foreign transactions, and that are not ripe."""
        trusted = pending = immature = 0
        for outpoint, coin in one.coins(view):
            if not wallet.is_ripe(view, coin):
                immature += coin.units
            elif wallet.is_safe(one, view, outpoint, coin):
                trusted += coin.units
            else:
                pending += coin.units
        return trusted, pending, immature

    def _balances(self) -> dict[str, Any]:
        view = self._node.view
        trusted, pending, immature = self._sums(self._wallet(), view)
        return {"mine": {"trusted": btc(trusted), "untrusted_pending": btc(pending), "immature": btc(immature)}} | _processed(view)

    # Descriptors

    @staticmethod
    def _descriptor_info(descriptor: Any) -> dict[str, Any]:
        parsed = wallet.parse_descriptor(text(descriptor), need_checksum=False, span=(0, 1))
        _, _, checksum = parsed.full.partition("#")
        facts = {"isrange": parsed.ranged, "issolvable": parsed.solvable, "hasprivatekeys": parsed.private}
        return {"descriptor": parsed.full, "checksum": checksum, **facts}

    def _import(self, requests: Any) -> list[dict[str, Any]]:
        one = self._wallet()
        return [self._imported(one, mapped(request)) for request in listed(requests)]

    def _imported(self, one: Wallet, request: dict[str, Any]) -> dict[str, Any]:
        """One of importdescriptors: what is wrong with it is told in its own place."""
        try:
            parsed = self._imports(one, request)
        except RpcError as error:
            return {"success": False, "error": {"code": error.code, "message": error.message}}
        ranged = parsed.ranged and "range" not in request
        return {"success": True} | ({"warnings": ["Range not given, using default keypool range"]} if ranged else {})

    def _imports(self, one: Wallet, request: dict[str, Any]) -> wallet.Parsed:
        if "desc" not in request:
            raise RpcError(rpc.INVALID_PARAMETER, "Descriptor not found.")
        if "timestamp" not in request:
            raise RpcError(rpc.TYPE_ERROR, "Missing required timestamp field for key")
        parsed = wallet.parse_descriptor(text(request["desc"]), need_checksum=True, span=_span(request.get("range")))
        if parsed.private:
            raise RpcError(rpc.WALLET_ERROR, "Cannot import private keys to a wallet with private keys disabled")
        view, given = self._node.view, request["timestamp"]
        timestamp = view.tip.median_time if given == "now" else whole(given, most=2**40)
        one.watch(parsed, view, timestamp=timestamp, label=text(request.get("label", "")))
        return parsed

    def _descriptors(self, private: Any = False) -> dict[str, Any]:  # noqa: FBT002
        if flag(private):
            raise RpcError(rpc.WALLET_ERROR, "Can't get private descriptor string for watch-only wallets")
        one = self._wallet()
        told = sorted({known.descriptor for known in one.watched.values()})
        rows = [{"desc": descriptor, "timestamp": one.birth, "active": False} for descriptor in told]
        return {"wallet_name": one.name, "descriptors": rows}

    # Coins and transactions

    def _unspent(
        self,
        minconf: Any = 1,
        maxconf: Any = CONFIRMATIONS_MAX,
        addresses: Any = None,
        include_unsafe: Any = True,  # noqa: FBT002
        query_options: Any = None,
    ) -> list[dict[str, Any]]:
        one, view = self._wallet(), self._node.view
        depths = (whole(minconf, least=0), whole(maxconf, least=0))
        scripts = _scripts(addresses)
        options = {} if query_options is None else mapped(query_options)
        least, most = (rpc.units_of(options.get(name, default)) for name, default in (("minimumAmount", 0), ("maximumAmount", 21_000_000)))
        rows = []
        for outpoint, coin in one.coins(view):
            confirmations = 0 if coin.height is None else view.height - coin.height + 1
            fits = depths[0] <= confirmations <= depths[1] and least <= coin.units <= most and (not scripts or coin.script in scripts)
            wanted = flag(include_unsafe) or wallet.is_safe(one, view, outpoint, coin)
            if fits and wanted and (wallet.is_ripe(view, coin) or options.get("include_immature_coinbase") is True):
                rows.append(wallet.unspent(one, view, outpoint, coin))
        count = options.get("maximumCount", 0)
        return rows[: whole(count)] if count else rows

    def _since(
        self,
        blockhash: Any = "",
        target_confirmations: Any = 1,
        include_watchonly: Any = True,  # noqa: FBT002
        include_removed: Any = True,  # noqa: FBT002
        include_change: Any = False,  # noqa: FBT002
        label: Any = None,
    ) -> dict[str, Any]:
        one, view = self._wallet(), self._node.view
        flag(include_watchonly)
        depth = whole(target_confirmations)
        if depth < 1:
            raise RpcError(rpc.INVALID_PARAMETER, "Invalid parameter")
        start = self._node.known_block(hash_of(blockhash, "blockhash")) if text(blockhash) else None
        undone: list[Block] = []
        height = -1
        if start is not None:
            while not self._node.chain.blocks.is_active(start):
                undone.append(start)
                start = self._node.known_block(start.parent)
            height = start.height
        change = flag(include_change)
        told = [row for found in one.since(view, height) for row in self._rows(one, view, found, change=change)]
        told = told if label is None else [row for row in told if row.get("label") == text(label)]
        fields: dict[str, Any] = {"transactions": told}
        if flag(include_removed):
            lost = [found for block in undone for found in one.in_block(view, block)]
            fields["removed"] = [row for found in lost for row in self._rows(one, view, found, change=change)]
        return fields | {"lastblock": self._node.chain.blocks.hash_at(max(0, view.height + 1 - depth))}

    def _rows(self, one: Wallet, view: View, found: Found, *, change: bool) -> list[dict[str, Any]]:
        now = found
        if found.block is not None and view.depth(found.block) < 0:  # undone: told as it stands now
            now = view.find(found.tx.txid) or Found(found.tx, None)
        place = wallet.place_of(one, view, now)
        return [{**row, **place} for row in wallet.movements(one, view, now, change=change)]

    def _transaction(self, txid: Any, include_watchonly: Any = True, verbose: Any = False) -> dict[str, Any]:  # noqa: FBT002
        one, view = self._wallet(), self._node.view
        flag(include_watchonly)
        found = one.find(view, hash_of(txid, "txid"))
        if found is None:
            raise RpcError(rpc.INVALID_ADDRESS_OR_KEY, "Invalid or non-wallet transaction id")
        return wallet.detail(one, view, found, verbose=flag(verbose))


def _processed(view: View) -> dict[str, Any]:
    return {"lastprocessedblock": {"hash": view.tip.hash, "height": view.height}}


def _span(given: Any) -> tuple[int, int]:
    """The half-open range of a descriptor: a number is its end, a pair its begin and end. Raises RpcError."""
    if given is None:
        return 0, wallet.RANGE_MAX
    begin, end = (0, given) if not isinstance(given, list) else (given[0], given[-1])
    low, high = whole(begin, least=0), whole(end, least=0)
    if high < low or high - low >= wallet.RANGE_MAX:
        raise RpcError(
            rpc.INVALID_PARAMETER, "Range is too large" if high > low else "Range specified as [begin,end] must not have begin after end"
        )
    return low, high + 1


def _scripts(addresses: Any) -> set[bytes]:
    found = set()
    for address in listed(addresses) if addresses is not None else []:
        try:
            found.add(script_of(text(address)))
        except ValueError as error:
            raise RpcError(rpc.INVALID_ADDRESS_OR_KEY, f"Invalid Bitcoin address: {address}") from error
    return found
