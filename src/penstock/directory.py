"""Merchants and internal accounts: who may call, and whom inside the house we pay.

Merchants are few and asked for on every request, so known ones are answered from memory and looked at again every half second.
A miss is looked up each time and never kept, so a merchant added by a command counts from the very next request. Accounts are
many and looked up.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from penstock.core.order import HOUSE_MERCHANT
from penstock.core.party import Account, Merchant, Secret, normalise_email
from penstock.db import Conflict, Database, Row, Tx
from penstock.runtime import Runtime

REFRESH_S: Final = 0.5
SECRET_BYTES: Final = 32
ACCOUNT_FIRST: Final = 1_000_000
ACCOUNTS: Final = 9_000_000
NAME_MAX: Final = 80


class DirectoryError(Exception):
    """A command that cannot be done; the text says why and what would be right."""


class Sealer(Protocol):
    """Encryption at rest."""

    def seal(self, plaintext: bytes, context: str) -> str:
        """Bound to `context`, the identity of the row."""
        ...

    def open_sealed(self, text: str, context: str) -> bytes:
        """The inverse."""
        ...


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
        self._by_app_id: dict[str, Merchant] = {}
        self._looked_at = float("-inf")

    # --------------------------------------------------------------------------------------------------------- merchants

    async def by_app_id(self, app_id: str) -> Merchant | None:
        """From memory where it is fresh, else from the database."""
        if self._runtime.monotonic() - self._looked_at > 2 * REFRESH_S:
            await self.refresh()
        known = self._by_app_id.get(app_id)
        if known is None and app_id:
            found = await self._load("merchant.app_id = :key", app_id)
            if not found:
                return None
            known = self._by_app_id[app_id] = found[0]
        return known if known is not None and known.id != HOUSE_MERCHANT else None

    async def merchant(self, merchant_id: int) -> Merchant | None:
        """By number, for webhooks."""
        known = next((m for m in self._by_app_id.values() if m.id == merchant_id), None)
        return known or next(iter(await self._load("merchant.id = :key", merchant_id)), None)

    async def refresh(self) -> None:
        """Load those that are known anew: changes count, and secrets whose time is over are gone."""
        started = self._runtime.monotonic()
        if self._by_app_id:
            self._by_app_id = {m.app_id: m for m in await self._load("merchant.id > :key", HOUSE_MERCHANT) if m.app_id in self._by_app_id}
        self._looked_at = started

    async def list_merchants(self) -> list[Merchant]:
        """Every merchant."""
        return await self._load("merchant.id > :key", HOUSE_MERCHANT)

    async def _load(self, where: str, key: int | str) -> list[Merchant]:
        def job(tx: Tx) -> list[Row]:
            # Merchants with every secret that is valid now, newest first.
            return tx.all(
                "SELECT merchant.id, name, app_id, webhook_url, disabled, ip_allow, merchant_secret.id AS secret_id, sealed FROM merchant "
                "LEFT JOIN merchant_secret ON merchant_secret.merchant_id = merchant.id "
                "AND (valid_until_ms IS NULL OR valid_until_ms > :now_ms) "
                f"WHERE {where} ORDER BY merchant.id, merchant_secret.id DESC",
                key=key,
                now_ms=self._runtime.now_ms(),
            )

        grouped: dict[int, list[Row]] = {}
        for row in await self._database.read(job):
            grouped.setdefault(row["id"], []).append(row)
        return [self._merchant(rows) for rows in grouped.values()]

    def _merchant(self, rows: Sequence[Row]) -> Merchant:
        first = rows[0]
        secrets = tuple(
            Secret(self._sealer.open_sealed(row["sealed"], _context(first["id"], row["secret_id"])).decode())
            for row in rows
            if row["sealed"]
        )
        return Merchant(
            first["id"],
            first["name"],
            first["app_id"],
            secrets,
            first["webhook_url"],
            bool(first["disabled"]),
            tuple(json.loads(first["ip_allow"])),
        )

    async def add_merchant(self, name: str, webhook_url: str, *, app_id: str, ids: Sequence[int]) -> tuple[Merchant, Secret]:
        """A new merchant and its secret. `ids`: one snowflake for the secret's row. Raises DirectoryError."""
        name = name.strip()
        if not 1 <= len(name) <= NAME_MAX:
            raise DirectoryError(f"a merchant's name has 1 to {NAME_MAX} characters")
        self._require_url(webhook_url)
        secret = Secret(self._runtime.random_bytes(SECRET_BYTES).hex())
        now_ms = self._runtime.now_ms()

        def job(tx: Tx) -> int:
            row = tx.one("SELECT MAX(id) AS last FROM merchant")
            merchant_id = (row["last"] if row and row["last"] is not None else 0) + 1
            tx.run(
                "INSERT INTO merchant (id, name, app_id, webhook_url, disabled, ip_allow, created_at_ms, changed_at_ms) "
                "VALUES (:id, :name, :app_id, :webhook_url, 0, '[]', :now_ms, :now_ms)",
                id=merchant_id,
                name=name,
                app_id=app_id,
                webhook_url=webhook_url,
                now_ms=now_ms,
            )
            self._add_secret(tx, merchant_id, ids[0], secret, now_ms)
            return merchant_id

        try:
            merchant_id = await self._database.write("merchant.add", job)
        except Conflict as error:
            raise DirectoryError(f"there is a merchant called {name} already") from error
        return (await self._load("merchant.id = :key", merchant_id))[0], secret

    def _add_secret(self, tx: Tx, merchant_id: int, secret_id: int, secret: Secret, now_ms: int) -> None:
        # Sealed to its own row: a secret copied to another row does not open.
        tx.run(
            "INSERT INTO merchant_secret (id, merchant_id, sealed, created_at_ms) VALUES (:id, :merchant_id, :sealed, :now_ms)",
            id=secret_id,
            merchant_id=merchant_id,
            sealed=self._sealer.seal(secret.reveal().encode(), _context(merchant_id, secret_id)),
            now_ms=now_ms,
        )

    async def set_merchant(
        self, merchant_id: int, *, webhook_url: str | None = None, disabled: bool | None = None, ip_allow: Sequence[str] | None = None
    ) -> Merchant:
        """Change what is given. Raises DirectoryError."""
        if webhook_url is not None:
            self._require_url(webhook_url)
        networks = None if ip_allow is None else json.dumps([_network(text) for text in ip_allow])

        def job(tx: Tx) -> None:
            tx.run(
                "UPDATE merchant SET webhook_url = COALESCE(:webhook_url, webhook_url), disabled = COALESCE(:disabled, disabled), "
                "ip_allow = COALESCE(:ip_allow, ip_allow), changed_at_ms = :now_ms WHERE id = :id",
                webhook_url=webhook_url,
                disabled=None if disabled is None else int(disabled),
                ip_allow=networks,
                now_ms=self._runtime.now_ms(),
                id=merchant_id,
            )

        await self._database.write("merchant.set", job)
        return (await self._load("merchant.id = :key", merchant_id))[0]

    async def rotate_secret(self, merchant_id: int, overlap_s: int, *, ids: Sequence[int]) -> tuple[Secret, int]:
        """A new secret; the old ones end after `overlap_s`. Returns it with the time (Unix ms) at which they do."""
        secret = Secret(self._runtime.random_bytes(SECRET_BYTES).hex())
        now_ms = self._runtime.now_ms()
        until_ms = now_ms + overlap_s * 1000

        def job(tx: Tx) -> None:
            # At most two are valid: one that was on its way out ends now, the current one gets its time.
            tx.run(
                "UPDATE merchant_secret SET valid_until_ms = CASE WHEN valid_until_ms IS NULL THEN :until_ms ELSE :now_ms END "
                "WHERE merchant_id = :merchant_id AND (valid_until_ms IS NULL OR valid_until_ms > :now_ms)",
                until_ms=until_ms,
                now_ms=now_ms,
                merchant_id=merchant_id,
            )
            self._add_secret(tx, merchant_id, ids[0], secret, now_ms)

        await self._database.write("merchant.rotate", job)
        return secret, until_ms

    def _require_url(self, url: str) -> None:
        problem = self._check_url(url) if url else None
        if problem is not None:
            raise DirectoryError(f"the webhook URL cannot be used: {problem}")

    # ---------------------------------------------------------------------------------------------------------- accounts

    async def find(self, text: str) -> Account | None:
        """By numeric id or e-mail address; looked up each time."""
        text = text.strip()
        if text.isascii() and text.isdigit():
            key: int | str | None = int(text) if len(text) == len(str(ACCOUNT_FIRST)) else None
            column = "id"
        else:
            key, column = normalise_email(text), "email"
        if key is None:
            return None
        row = await self._database.read(lambda tx: tx.one(f"SELECT id, email, nickname FROM account WHERE {column} = :key", key=key))
        return Account(**row) if row is not None else None

    async def list_accounts(self) -> list[Account]:
        """Every account."""
        rows = await self._database.read(lambda tx: tx.all("SELECT id, email, nickname FROM account ORDER BY created_at_ms, id"))
        return [Account(**row) for row in rows]

    async def add_account(self, email: str, nickname: str) -> Account:
        """A new account under a free random number. Raises DirectoryError."""
        address = normalise_email(email)
        if address is None:
            raise DirectoryError(f"{email[:80]!r} is not an e-mail address")
        nickname = nickname.strip() or address.partition("@")[0]
        if len(nickname) > NAME_MAX or not nickname.isprintable():
            raise DirectoryError(f"a nickname has at most {NAME_MAX} printable characters")
        number = ACCOUNT_FIRST + self._runtime.random_below(ACCOUNTS)

        def job(tx: Tx) -> int | None:
            taken = {row["id"] for row in tx.all("SELECT id FROM account WHERE id BETWEEN :low AND :high", low=number, high=number + 999)}
            free = next((n for n in range(number, min(number + 1000, ACCOUNT_FIRST + ACCOUNTS)) if n not in taken), None)
            if free is not None:
                tx.run(
                    "INSERT INTO account (id, email, nickname, created_at_ms) VALUES (:id, :email, :nickname, :now_ms)",
                    id=free,
                    email=address,
                    nickname=nickname,
                    now_ms=self._runtime.now_ms(),
                )
            return free

        try:
            found = await self._database.write("account.add", job)
        except Conflict as error:
            raise DirectoryError(f"there is an account with the e-mail address {address} already") from error
        if found is None:
            raise DirectoryError("no free number was found; try again")
        return Account(found, address, nickname)


def _context(merchant_id: int, secret_id: int) -> str:
    return f"merchant:{merchant_id}:secret:{secret_id}"


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise DirectoryError(f"{text!r} is not an address or network such as 203.0.113.7 or 203.0.113.0/24") from error
