"""Merchants and internal accounts: who may call, and whom inside the house we pay.

Merchants are asked for on every request, so those that were seen are answered from memory. Every half second (`keep`), and on demand when the
last look is a second old, one row tells whether any merchant changed; only those that did are loaded again. When the database cannot be
asked, memory that is too old is not used. A miss is looked up each time and never kept, so a merchant added by a command counts from
the very next request. Accounts are many, but never change: the thousands that were found last are answered from memory.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import structlog

from penstock.core.latest import Latest
from penstock.core.order import HOUSE_MERCHANT
from penstock.core.party import Account, Merchant, Secret, normalise_email
from penstock.db import Conflict, Database, DatabaseUnavailable, Row, Tx
from penstock.runtime import Runtime
from penstock.together import Together

log = structlog.get_logger()

REFRESH_S: Final = 0.5
STALE_S: Final = 1.0
"""A change by anybody counts within this time."""
SECRET_BYTES: Final = 32
ACCOUNT_FIRST: Final = 1_000_000
ACCOUNTS: Final = 9_000_000
NAME_MAX: Final = 80
NETWORKS_MAX: Final = 100
OVERLAP_S_MAX: Final = 90 * 86_400
LIST_MAX: Final = 10_000
LOOKED_UP_AT_ONCE: Final = 500
"""Accounts, or merchants, in one statement: those that were asked for while the statement before was under way."""
ACCOUNTS_KEPT: Final = 20_000
"""5 MB. Who is paid is mostly paid again."""
_TRIES: Final = 20
_THESE: Final = "SELECT id FROM merchant WHERE id IN (SELECT n.key FROM {ROWS n(key {INT})})"


class DirectoryError(Exception):
    """A command that cannot be done; the text says why and what would be right."""


class Sealer(Protocol):
    """Encryption at rest."""

    def seal(self, plaintext: bytes, context: str) -> str:
        """Bound to `context`, the identity of the row."""
        ...

    def open_sealed(self, text: str, context: str) -> bytes:
        """The inverse. Raises when the text was altered or belongs to another context."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """A merchant in memory; `until_ms` says until when each of its secrets is valid, None for ever."""

    merchant: Merchant
    changed_at_ms: int
    until_ms: tuple[int | None, ...]

    def at(self, now_ms: int) -> Merchant:
        """With the secrets that are valid now."""
        if self.until_ms.count(None) == len(self.until_ms) or all(until is None or until > now_ms for until in self.until_ms):
            return self.merchant
        valid = (s for s, until in zip(self.merchant.secrets, self.until_ms, strict=True) if until is None or until > now_ms)
        return replace(self.merchant, secrets=tuple(valid))


class Directory:
    """One process' view of both tables."""

    def __init__(
        self,
        database: Database,
        runtime: Runtime,
        sealer: Sealer,
        *,
        check_url: Callable[[str], str | None] = lambda url: None,  # noqa: ARG005
    ) -> None:
        """`check_url` says in a sentence why a webhook URL cannot be used."""
        self._database = database
        self._runtime = runtime
        self._sealer = sealer
        self._check_url = check_url
        self._known: dict[int, _Known] = {}
        self._id_of: dict[str, int] = {}
        self._stores = 0
        self._sum: int | None = None
        self._looked_at = float("-inf")
        self._look = asyncio.Lock()
        self._missed: Together[int | str, _Known | None] = Together(
            runtime, partial(_each, self._merchants), name="merchants", most=LOOKED_UP_AT_ONCE, broken=DatabaseUnavailable
        )
        self._account: Together[int | str, Account | None] = Together(
            runtime, partial(_each, self._accounts), name="accounts", most=LOOKED_UP_AT_ONCE, broken=DatabaseUnavailable
        )
        self._accounts_kept: Latest[int | str, Account] = Latest(ACCOUNTS_KEPT)

    # --------------------------------------------------------------------------------------------------------- merchants

    async def by_app_id(self, app_id: str) -> Merchant | None:
        """With the secrets that are valid now, newest first; None for nobody, and for the house. Raises DatabaseUnavailable."""
        if self._is_stale():
            await self._be_fresh()
        merchant_id = self._id_of.get(app_id)
        known = self._known.get(merchant_id) if merchant_id is not None else await self._missed(app_id) if app_id else None
        return known.at(self._runtime.now_ms()) if known is not None and known.merchant.id != HOUSE_MERCHANT else None

    async def merchant(self, merchant_id: int) -> Merchant | None:
        """By number, for webhooks; the house is made when it is first asked for. Raises DatabaseUnavailable."""
        await self._be_fresh()
        known = self._known.get(merchant_id) or await self._missed(merchant_id)
        if known is None and merchant_id == HOUSE_MERCHANT:
            known = await self._make_house()
        return known.at(self._runtime.now_ms()) if known is not None else None

    def _is_stale(self) -> bool:
        return self._runtime.monotonic() - self._looked_at >= STALE_S

    async def _be_fresh(self) -> None:
        if self._is_stale():
            asked_at = self._runtime.monotonic()
            async with self._look:
                if self._looked_at < asked_at:  # nobody looked while this one waited
                    await self.refresh()

    async def refresh(self) -> None:
        """Load again what changed. Raises DatabaseUnavailable."""
        started = self._runtime.monotonic()
        known = [{"id": merchant_id} for merchant_id in self._known]
        before, stores = self._sum, self._stores

        def job(tx: Tx) -> tuple[int, list[Row]]:
            # Each change raises its row's changed_at_ms, so the sum is another one whenever anything changed.
            row = tx.one("SELECT COALESCE(SUM(changed_at_ms), 0) AS total FROM merchant")
            total = int(row["total"]) if row else 0
            if total == before or not known:
                return total, []
            # Which of those in memory are not as they were.
            return total, tx.all("SELECT id, changed_at_ms FROM merchant WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=known)

        total, rows = await self._database.read(job)
        changed = [row["id"] for row in rows if self._known[row["id"]].changed_at_ms != row["changed_at_ms"]]
        if changed:
            await self._load(_THESE, n=[{"key": merchant_id} for merchant_id in changed])
        self._sum, self._looked_at = total if stores == self._stores else None, started

    async def list_merchants(self) -> list[Merchant]:
        """Every merchant but the house, in the order of their making."""
        now_ms = self._runtime.now_ms()
        return [
            known.at(now_ms) for known in await self._load("SELECT id FROM merchant WHERE id > :house", keep=False, house=HOUSE_MERCHANT)
        ]

    async def _merchants(self, keys: list[int | str]) -> Mapping[int | str, _Known]:
        """Merchants by either of their names, those of many callers at once."""
        numbers, app_ids = [{"key": key} for key in keys if isinstance(key, int)], [{"key": key} for key in keys if isinstance(key, str)]
        found = await self._load(
            f"{_THESE} UNION SELECT id FROM merchant WHERE app_id IN (SELECT a.key FROM {{ROWS a(key TEXT)}})", n=numbers, a=app_ids
        )
        return {key: known for known in found for key in (known.merchant.id, known.merchant.app_id)}

    async def _load(self, chosen: str, *, keep: bool = True, **parameters: Any) -> list[_Known]:
        now_ms = self._runtime.now_ms()
        chosen = f"{chosen} ORDER BY id LIMIT :limit"

        def job(tx: Tx) -> tuple[list[Row], list[Row]]:
            # The merchants that are asked for ...
            rows = tx.all(
                "SELECT id, name, app_id, webhook_url, disabled, ip_allow, changed_at_ms FROM merchant "
                f"WHERE id IN ({chosen}) ORDER BY id",
                limit=LIST_MAX, **parameters,
            )  # fmt: skip
            # ... and their secrets that are valid now, newest first.
            secrets = tx.all(
                "SELECT id, merchant_id, sealed, valid_until_ms FROM merchant_secret "
                f"WHERE merchant_id IN ({chosen}) AND (valid_until_ms IS NULL OR valid_until_ms > :now_ms) ORDER BY id DESC",
                limit=LIST_MAX, now_ms=now_ms, **parameters,
            )  # fmt: skip
            return rows, secrets

        rows, secrets = await self._database.read(job)
        of_merchant: dict[int, list[Row]] = {}
        for row in secrets:
            of_merchant.setdefault(row["merchant_id"], []).append(row)
        found = [self._opened(row, of_merchant.get(row["id"], [])) for row in rows]
        if keep:
            self._stores, self._sum = self._stores + 1, None  # what was read may be older than the last look: compare at the next
            for known in found:
                self._known[known.merchant.id] = known
                self._id_of[known.merchant.app_id] = known.merchant.id
        return found

    def _opened(self, row: Row, secrets: Sequence[Row]) -> _Known:
        opened = [(secret, s["valid_until_ms"]) for s in secrets if (secret := self._secret(row["id"], s)) is not None]
        merchant = Merchant(
            id=row["id"],
            name=row["name"],
            app_id=row["app_id"],
            secrets=tuple(secret for secret, _ in opened),
            webhook_url=row["webhook_url"],
            disabled=bool(row["disabled"]),
            ip_allow=tuple(json.loads(row["ip_allow"])),
        )
        return _Known(merchant, row["changed_at_ms"], tuple(until for _, until in opened))

    def _secret(self, merchant_id: int, row: Row) -> Secret | None:
        """None for one that does not open: whatever is wrong with one row must not shut out every merchant."""
        try:
            return Secret(self._sealer.open_sealed(row["sealed"], _context(merchant_id, row["id"])).decode())
        except Exception as error:  # noqa: BLE001
            log.error("directory.secret.unreadable", merchant=merchant_id, secret_id=row["id"], error=type(error).__name__)  # noqa: TRY400
            return None

    # ------------------------------------------------------------------------------------------------ commands on merchants

    async def add_merchant(self, name: str, webhook_url: str, *, app_id: str, ids: Sequence[int]) -> tuple[Merchant, Secret]:
        """A new merchant and its secret. `ids`: one snowflake for the secret's row. Raises DirectoryError."""
        name = _name(name, "a merchant's name")
        self._require_url(webhook_url)
        secret, now_ms = self._new_secret(), self._runtime.now_ms()

        def job(tx: Tx) -> int:
            if tx.one("SELECT id FROM merchant WHERE name = :name", name=name):
                raise DirectoryError(f"there is a merchant called {name} already; choose another name")
            row = tx.one("SELECT COALESCE(MAX(id), 0) + 1 AS id FROM merchant")
            merchant_id = int(row["id"]) if row else 1
            _insert_merchant(tx, merchant_id, name, app_id, webhook_url, disabled=0, now_ms=now_ms)
            self._add_secret(tx, merchant_id, ids[0], secret, now_ms)
            return merchant_id

        merchant_id = await self._insert("merchant.add", job)
        return (await self._load(_THESE, n=[{"key": merchant_id}]))[0].merchant, secret

    async def set_merchant(
        self, merchant_id: int, *, webhook_url: str | None = None, disabled: bool | None = None, ip_allow: Sequence[str] | None = None
    ) -> Merchant:
        """Change what is given; an empty allow-list admits any address. Raises DirectoryError."""
        if webhook_url is not None:
            self._require_url(webhook_url)
        networks = None if ip_allow is None else json.dumps(_networks(ip_allow))

        def job(tx: Tx) -> None:
            self._touch(tx, merchant_id)
            # What was not given stays.
            tx.run(
                "UPDATE merchant SET webhook_url = COALESCE(:webhook_url, webhook_url), disabled = COALESCE(:disabled, disabled), "
                "ip_allow = COALESCE(:ip_allow, ip_allow) WHERE id = :id",
                webhook_url=webhook_url,
                disabled=None if disabled is None else int(disabled),
                ip_allow=networks,
                id=merchant_id,
            )

        await self._database.write("merchant.set", job)
        return (await self._load(_THESE, n=[{"key": merchant_id}]))[0].at(self._runtime.now_ms())

    async def rotate_secret(self, merchant_id: int, overlap_s: int, *, ids: Sequence[int]) -> tuple[Secret, int]:
        """A new secret; the current one ends after `overlap_s`. Returns it with the time (Unix ms) at which the old one ends.

        A secret that was on its way out already keeps its own time: rotating twice in haste must not lock a client out.
        """
        if not 0 <= overlap_s <= OVERLAP_S_MAX:
            raise DirectoryError(f"the overlap must be 0 to {OVERLAP_S_MAX} seconds (90 days)")
        secret, now_ms = self._new_secret(), self._runtime.now_ms()
        until_ms = now_ms + overlap_s * 1000

        def job(tx: Tx) -> None:
            self._touch(tx, merchant_id)
            # The one that was current until now.
            tx.run(
                "UPDATE merchant_secret SET valid_until_ms = :until_ms WHERE merchant_id = :merchant_id AND valid_until_ms IS NULL",
                until_ms=until_ms,
                merchant_id=merchant_id,
            )
            self._add_secret(tx, merchant_id, ids[0], secret, now_ms)

        await self._database.write("merchant.rotate", job)
        await self._load(_THESE, n=[{"key": merchant_id}])
        return secret, until_ms

    async def _make_house(self) -> _Known:
        now_ms = self._runtime.now_ms()

        def job(tx: Tx) -> None:
            if not tx.one("SELECT id FROM merchant WHERE id = :id", id=HOUSE_MERCHANT):
                _insert_merchant(tx, HOUSE_MERCHANT, "(the house)", "house", "", disabled=1, now_ms=now_ms)

        await self._insert("merchant.house", job)
        return (await self._load(_THESE, n=[{"key": HOUSE_MERCHANT}]))[0]

    async def _insert(self, label: str, job: Callable[[Tx], Any]) -> Any:
        """Run a job that chooses what must be unique; when somebody else was first, it looks and chooses again."""
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._database.write(label, job)
            except Conflict:
                if attempt == _TRIES:
                    raise
        raise AssertionError

    def _touch(self, tx: Tx, merchant_id: int) -> None:
        # Rises with every change, also when the clock does not: this is how other processes see it.
        if not tx.run(
            "UPDATE merchant SET changed_at_ms = CASE WHEN :now_ms > changed_at_ms THEN :now_ms ELSE changed_at_ms + 1 END WHERE id = :id",
            now_ms=self._runtime.now_ms(),
            id=merchant_id,
        ):
            raise DirectoryError(f"there is no merchant {merchant_id}")

    def _new_secret(self) -> Secret:
        return Secret(self._runtime.random_bytes(SECRET_BYTES).hex())

    def _add_secret(self, tx: Tx, merchant_id: int, secret_id: int, secret: Secret, now_ms: int) -> None:
        # Sealed to its own row: a secret copied to another row does not open.
        tx.run(
            "INSERT INTO merchant_secret (id, merchant_id, sealed, created_at_ms) VALUES (:id, :merchant_id, :sealed, :now_ms)",
            id=secret_id,
            merchant_id=merchant_id,
            sealed=self._sealer.seal(secret.reveal().encode(), _context(merchant_id, secret_id)),
            now_ms=now_ms,
        )

    def _require_url(self, url: str) -> None:
        problem = self._check_url(url) if url else None
        if problem is not None:
            raise DirectoryError(f"the webhook URL cannot be used: {problem}")

    # ---------------------------------------------------------------------------------------------------------- accounts

    async def find(self, text: str) -> Account | None:
        """By numeric id or e-mail address; looked up when it was not found before, many at once. Raises DatabaseUnavailable."""
        text = text.strip()
        if text.isascii() and text.isdigit():
            key: int | str | None = int(text) if len(text) == len(str(ACCOUNT_FIRST)) else None
        else:
            key = normalise_email(text)
        if key is None:
            return None
        account = self._accounts_kept.get(key)
        if account is None and (account := await self._account(key)) is not None:
            self._accounts_kept[key] = account
        return account

    async def _accounts(self, keys: list[int | str]) -> Mapping[int | str, Account]:
        numbers, addresses = [{"key": key} for key in keys if isinstance(key, int)], [{"key": key} for key in keys if isinstance(key, str)]

        def job(tx: Tx) -> list[Row]:
            # Accounts by either of their names, those of many requests at once.
            columns, rows = "SELECT account.id, email, nickname FROM account", []
            if numbers:
                rows += tx.all(f"{columns} WHERE id IN (SELECT k.key FROM {{ROWS k(key {{INT}})}})", k=numbers)
            if addresses:
                rows += tx.all(f"{columns} WHERE email IN (SELECT k.key FROM {{ROWS k(key TEXT)}})", k=addresses)
            return rows

        found: dict[int | str, Account] = {}
        for row in await self._database.read(job):
            found[row["id"]] = found[row["email"]] = Account(**row)
        return found

    async def list_accounts(self) -> list[Account]:
        """Accounts in the order of their making."""
        # Their numbers are random, so the time orders them.
        rows = await self._database.read(
            lambda tx: tx.all("SELECT id, email, nickname FROM account ORDER BY created_at_ms, id LIMIT :limit", limit=LIST_MAX)
        )
        return [Account(**row) for row in rows]

    async def add_account(self, email: str, nickname: str) -> Account:
        """A new account under a free random number of 7 digits. Raises DirectoryError."""
        address = normalise_email(email)
        if address is None:
            raise DirectoryError(f"{email[:80]!r} is not an e-mail address")
        nickname = _name(nickname.strip() or address.partition("@")[0][:NAME_MAX], "a nickname")

        def job(tx: Tx) -> int:
            if tx.one("SELECT id FROM account WHERE email = :email", email=address):
                raise DirectoryError(f"there is an account with the e-mail address {address} already")
            number = ACCOUNT_FIRST + self._runtime.random_below(ACCOUNTS)
            tx.run(
                "INSERT INTO account (id, email, nickname, created_at_ms) VALUES (:id, :email, :nickname, :now_ms)",
                id=number,
                email=address,
                nickname=nickname,
                now_ms=self._runtime.now_ms(),
            )
            return number

        return Account(await self._insert("account.add", job), address, nickname)


_K = TypeVar("_K")
_V = TypeVar("_V")


async def _each(look_up: Callable[[list[_K]], Awaitable[Mapping[_K, _V]]], keys: list[_K]) -> Sequence[_V | Exception | None]:
    """What is found for each key, or why it is not known."""
    try:
        found = await look_up(keys)
    except DatabaseUnavailable as error:
        return [error] * len(keys)
    except Exception as error:  # noqa: BLE001  what the database refuses of one must not be refused to the others
        return [error] if len(keys) == 1 else [(await _each(look_up, [key]))[0] for key in keys]
    return [found.get(key) for key in keys]


def _insert_merchant(tx: Tx, merchant_id: int, name: str, app_id: str, webhook_url: str, *, disabled: int, now_ms: int) -> None:
    # Without credentials, which are rows of their own.
    tx.run(
        "INSERT INTO merchant (id, name, app_id, webhook_url, disabled, ip_allow, created_at_ms, changed_at_ms) "
        "VALUES (:id, :name, :app_id, :webhook_url, :disabled, '[]', :now_ms, :now_ms)",
        id=merchant_id, name=name, app_id=app_id, webhook_url=webhook_url, disabled=disabled, now_ms=now_ms,
    )  # fmt: skip


def _context(merchant_id: int, secret_id: int) -> str:
    return f"merchant:{merchant_id}:secret:{secret_id}"


def _name(text: str, what: str) -> str:
    text = text.strip()
    if not 1 <= len(text) <= NAME_MAX or not text.isprintable():
        raise DirectoryError(f"{what} has 1 to {NAME_MAX} printable characters")
    return text


def _networks(texts: Sequence[str]) -> list[str]:
    if len(texts) > NETWORKS_MAX:
        raise DirectoryError(f"the allow-list has at most {NETWORKS_MAX} entries")
    try:
        return sorted({str(ipaddress.ip_network(text.strip())) for text in texts})
    except ValueError as error:
        wrong = str(error).partition(" does not")[0].partition(" has host bits")[0]
        raise DirectoryError(f"{wrong} is no address or network such as 203.0.113.7 or 203.0.113.0/24 (host bits must be 0)") from error
