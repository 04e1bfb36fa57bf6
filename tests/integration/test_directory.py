"""Merchants and accounts on both databases: known ones from memory, changes within a second, misses never kept."""

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from penstock import directory
from penstock.core.order import HOUSE_MERCHANT
from penstock.core.party import Account
from penstock.core.snowflake import compose, wire_id
from penstock.db import DatabaseUnavailable, open_database
from penstock.directory import LIST_MAX, REFRESH_S, Directory, DirectoryError
from penstock.prove.simulated.virtual import Journal, VirtualLoop, VirtualRuntime
from penstock.pump import every

IDS = iter(compose(1_790_000_000_000, 1, n) for n in range(4096))


class Sealer:
    """Tied to its context as the vault is, readable for a test."""

    def seal(self, plaintext, context):
        return f"{context}|{plaintext.decode()}"

    def open_sealed(self, text, context):
        bound, _, plain = text.partition("|")
        if bound != context:
            raise ValueError("sealed elsewhere")
        return plain.encode()


class House:
    """One process with a directory; `second()` is another process on the same database."""

    def __init__(self, runtime, database):
        self.runtime = runtime
        self.database = database
        self.directory = self.second()
        self.reads = 0
        honest = database.read

        async def read(job):
            self.reads += 1
            return await honest(job)

        database.read = read

    def second(self):
        return Directory(self.database, self.runtime, Sealer(), check_url=lambda url: None if url.startswith("https://") else "use https")

    async def add(self, name="Shop", url="https://shop.example/", directory=None):
        return await (directory or self.directory).add_merchant(name, url, app_id=wire_id(next(IDS)), ids=[next(IDS)])


def scenario(url, body):
    loop = VirtualLoop()
    runtime = VirtualRuntime(loop, random.Random(1), Journal())

    async def run():
        database = open_database(runtime, url)
        try:
            await body(House(runtime, database))
        finally:
            await database.close()

    try:
        loop.run_until_complete(run())
    finally:
        runtime.bury()
        loop.close()


def test_a_merchant_gets_an_app_id_and_a_secret_that_is_stored_sealed(migrated_url):
    async def body(h):
        merchant, secret = await h.add(" Shop ")
        assert (merchant.name, merchant.webhook_url, merchant.disabled, merchant.ip_allow) == ("Shop", "https://shop.example/", False, ())
        assert len(merchant.app_id) == 33
        assert len(secret.reveal()) == 64
        assert merchant.secrets == (secret,)
        assert await h.directory.by_app_id(merchant.app_id) == merchant
        assert await h.directory.merchant(merchant.id) == merchant
        rows = await h.database.read(lambda tx: tx.all("SELECT * FROM merchant_secret"))
        assert rows[0]["sealed"].startswith(f"merchant:{merchant.id}:secret:{rows[0]['id']}|")

    scenario(migrated_url, body)


def test_known_merchants_cost_no_query_while_the_look_is_fresh(migrated_url):
    async def body(h):
        merchant, _ = await h.add()
        h.runtime.spawn(every(REFRESH_S, h.directory.refresh, h.runtime), name="keep")
        await h.runtime.sleep(1)
        for _ in range(30):
            before = h.reads
            for _ in range(100):
                assert await h.directory.by_app_id(merchant.app_id)
            assert h.reads == before
            await h.runtime.sleep(0.1)

    scenario(migrated_url, body)


def test_many_requests_at_once_share_one_look(migrated_url):
    async def body(h):
        merchant, _ = await h.add()
        await h.runtime.sleep(60)
        before = h.reads
        found = await asyncio.gather(*(h.directory.by_app_id(merchant.app_id) for _ in range(200)))
        assert all(found)
        assert h.reads == before + 1

    scenario(migrated_url, body)


@pytest.mark.parametrize("keeping", [True, False])
def test_a_change_by_another_process_counts_within_a_second(migrated_url, keeping):
    async def body(h):
        other = h.second()
        merchant, _ = await h.add(directory=other)
        bystander, _ = await h.add("Bystander", directory=other)
        if keeping:
            h.runtime.spawn(every(REFRESH_S, h.directory.refresh, h.runtime), name="keep")
        for step in range(20):
            await h.directory.by_app_id(merchant.app_id)
            await h.directory.by_app_id(bystander.app_id)
            await other.set_merchant(merchant.id, disabled=step % 2 == 0, ip_allow=["203.0.113.0/24", "2001:db8::1"])
            await h.runtime.sleep(1.02)
            seen = await h.directory.by_app_id(merchant.app_id)
            assert seen.disabled == (step % 2 == 0)
            assert seen.ip_allow == ("2001:db8::1/128", "203.0.113.0/24")
            assert (await h.directory.by_app_id(bystander.app_id)).disabled is False

    scenario(migrated_url, body)


def test_a_change_counts_also_when_the_clock_of_who_made_it_stands_still(migrated_url):
    async def body(h):
        other = h.second()
        merchant, _ = await h.add(directory=other)
        frozen = h.runtime.now_ms()
        other._runtime = type("Frozen", (), {"now_ms": lambda _: frozen - 3_600_000})()
        for number in range(5):
            await h.directory.by_app_id(merchant.app_id)
            await other.set_merchant(merchant.id, webhook_url=f"https://shop.example/{number}")
            await h.runtime.sleep(1.02)
            assert (await h.directory.by_app_id(merchant.app_id)).webhook_url == f"https://shop.example/{number}"

    scenario(migrated_url, body)


def test_a_merchant_loaded_while_it_changed_is_looked_at_again(migrated_url):
    """The load reads the old row, the change and a look come between, and only then is the old row stored."""

    async def body(h):
        other = h.second()
        merchant, _ = await h.add(directory=other)
        honest, first = h.database.read, True

        async def slow_read(job):
            nonlocal first
            result = await honest(job)
            if first:
                first = False
                await other.set_merchant(merchant.id, disabled=True)
                await h.directory.refresh()
            return result

        await h.directory.refresh()
        h.database.read = slow_read
        await h.directory.by_app_id(merchant.app_id)
        await h.runtime.sleep(1.02)
        assert (await h.directory.by_app_id(merchant.app_id)).disabled

    scenario(migrated_url, body)


def test_a_miss_is_asked_each_time_and_a_new_merchant_counts_from_the_next_request(migrated_url):
    async def body(h):
        app_id = wire_id(next(IDS))
        assert await h.directory.by_app_id(app_id) is None
        assert await h.directory.by_app_id("") is None
        other = h.second()
        await other.add_merchant("New", "", app_id=app_id, ids=[next(IDS)])
        assert (await h.directory.by_app_id(app_id)).name == "New"

    scenario(migrated_url, body)


def test_merchants_that_nobody_has_asked_for_yet_are_loaded_together(migrated_url):
    async def body(h):
        made = [(await h.add(f"Shop {n}"))[0] for n in range(20)]
        fresh = h.second()
        await fresh.refresh()
        before = h.reads
        of_numbers = asyncio.gather(*(fresh.merchant(m.id) for m in made for _ in range(3)), fresh.merchant(99))
        of_app_ids = asyncio.gather(*(fresh.by_app_id(m.app_id) for m in made[:5]), fresh.by_app_id("nobody"))
        assert await of_numbers == [*(m for m in made for _ in range(3)), None]
        assert await of_app_ids == [*made[:5], None]
        assert h.reads == before + 1

    scenario(migrated_url, body)


def test_memory_is_not_trusted_when_the_database_cannot_be_asked(migrated_url):
    async def body(h):
        merchant, _ = await h.add()
        h.runtime.spawn(every(REFRESH_S, h.directory.refresh, h.runtime), name="keep")
        await h.runtime.sleep(1)
        honest = h.database.read

        async def away(job):
            raise DatabaseUnavailable("away")

        h.database.read = away
        assert await h.directory.by_app_id(merchant.app_id)
        await h.runtime.sleep(1.1)
        with pytest.raises(DatabaseUnavailable):
            await h.directory.by_app_id(merchant.app_id)
        h.database.read = honest
        await h.runtime.sleep(1)
        assert await h.directory.by_app_id(merchant.app_id)

    scenario(migrated_url, body)


def test_two_secrets_are_valid_until_the_stated_time_and_then_one(migrated_url):
    async def body(h):
        merchant, first = await h.add()
        other = h.second()
        await h.directory.by_app_id(merchant.app_id)
        second, until_ms = await other.rotate_secret(merchant.id, 60, ids=[next(IDS)])
        assert until_ms == pytest.approx(h.runtime.now_ms() + 60_000, abs=50)
        await h.runtime.sleep(1.02)
        assert (await h.directory.by_app_id(merchant.app_id)).secrets == (second, first)
        await h.runtime.sleep((until_ms - h.runtime.now_ms()) / 1000 - 0.05)
        assert (await h.directory.by_app_id(merchant.app_id)).secrets == (second, first)
        await h.runtime.sleep(0.06)
        assert (await h.directory.by_app_id(merchant.app_id)).secrets == (second,)
        assert (await other.by_app_id(merchant.app_id)).secrets == (second,)

    scenario(migrated_url, body)


def test_rotated_twice_in_haste_the_secret_in_use_keeps_its_time(migrated_url):
    async def body(h):
        merchant, in_use = await h.add()
        lost, _ = await h.directory.rotate_secret(merchant.id, 3_600, ids=[next(IDS)])
        final, _ = await h.directory.rotate_secret(merchant.id, 0, ids=[next(IDS)])
        assert (await h.directory.merchant(merchant.id)).secrets == (final, in_use)
        assert lost not in (await h.directory.merchant(merchant.id)).secrets

    scenario(migrated_url, body)


def test_a_secret_moved_to_another_row_does_not_open_and_shuts_out_nobody_else(migrated_url):
    async def body(h):
        a, _ = await h.add("A")
        b, secret = await h.add("B")
        rows = await h.database.read(lambda tx: tx.all("SELECT * FROM merchant_secret ORDER BY merchant_id"))
        await h.database.write(
            "swap", lambda tx: tx.run("UPDATE merchant_secret SET sealed = :s WHERE merchant_id = :id", s=rows[1]["sealed"], id=a.id)
        )
        fresh = h.second()
        with capture_logs() as logs:
            assert (await fresh.by_app_id(a.app_id)).secrets == ()
        assert [line["event"] for line in logs] == ["directory.secret.unreadable"]
        assert secret.reveal() not in str(logs)
        assert (await fresh.by_app_id(b.app_id)).secrets == (secret,)

    scenario(migrated_url, body)


def test_the_house_is_made_when_it_is_first_needed_and_has_no_credentials(migrated_url):
    async def body(h):
        first, second = await asyncio.gather(h.directory.merchant(HOUSE_MERCHANT), h.second().merchant(HOUSE_MERCHANT))
        assert first == second
        assert (first.id, first.disabled, first.secrets, first.webhook_url) == (0, True, (), "")
        assert await h.directory.by_app_id(first.app_id) is None
        assert await h.directory.list_merchants() == []
        merchant, _ = await h.add()
        assert merchant.id == 1

    scenario(migrated_url, body)


def test_nobody_by_an_unknown_number(migrated_url):
    async def body(h):
        assert await h.directory.merchant(12345) is None
        for command in (h.directory.set_merchant(9, disabled=True), h.directory.rotate_secret(9, 60, ids=[next(IDS)])):
            with pytest.raises(DirectoryError, match="there is no merchant 9"):
                await command

    scenario(migrated_url, body)


def test_names_urls_networks_and_overlaps_are_refused_in_plain_words(migrated_url):
    async def body(h):
        merchant, _ = await h.add("Taken")
        d = h.directory
        refused = [
            (h.add("Taken"), "there is a merchant called Taken already"),
            (h.add("  "), "1 to 80 printable characters"),
            (h.add("x" * 81), "1 to 80 printable characters"),
            (h.add("a\nb"), "1 to 80 printable characters"),
            (h.add("Other", "http://shop.example/"), "the webhook URL cannot be used: use https"),
            (d.set_merchant(merchant.id, webhook_url="ftp://x"), "use https"),
            (d.set_merchant(merchant.id, ip_allow=["203.0.113.7/24"]), "203.0.113.7/24 is no address or network"),
            (d.set_merchant(merchant.id, ip_allow=["shop.example"]), "'shop.example' is no address or network"),
            (d.set_merchant(merchant.id, ip_allow=["10.0.0.0/8"] * 101), "at most 100 entries"),
            (d.rotate_secret(merchant.id, -1, ids=[1]), "0 to 7776000 seconds"),
            (d.rotate_secret(merchant.id, 10**9, ids=[1]), "0 to 7776000 seconds"),
        ]
        for command, why in refused:
            with pytest.raises(DirectoryError, match=why):
                await command
        assert await d.list_merchants() == [merchant]
        cleared = await d.set_merchant(merchant.id, webhook_url="", ip_allow=[])
        assert (cleared.webhook_url, cleared.ip_allow) == ("", ())

    scenario(migrated_url, body)


def test_merchants_added_at_once_all_get_numbers_of_their_own(migrated_url):
    async def body(h):
        made = await asyncio.gather(*(h.add(f"Shop {n}", directory=h.second()) for n in range(12)))
        assert len({merchant.id for merchant, _ in made}) == 12
        assert len(await h.directory.list_merchants()) == 12

    scenario(migrated_url, body)


def test_an_account_is_found_by_number_and_by_e_mail_in_any_case(migrated_url):
    async def body(h):
        made = await h.directory.add_account(" Ann@Example.ORG ", "Ann")
        assert 1_000_000 <= made.id <= 9_999_999
        assert made == Account(made.id, "ann@example.org", "Ann")
        for text in (str(made.id), f" {made.id} ", "ann@example.org", "ANN@example.org "):
            assert await h.second().find(text) == made
        for text in ("", "9999998", "123", "0" + str(made.id), "nobody@example.org", "not an address", "١٢٣٤٥٦٧", str(10**40)):
            assert await h.directory.find(text) is None

    scenario(migrated_url, body)


def test_accounts_asked_for_at_once_are_looked_up_in_one_statement_and_each_request_gets_its_own(migrated_url):
    async def body(h):
        made = [await h.directory.add_account(f"person{n}@example.org", f"Person {n}") for n in range(20)]
        before = h.reads
        found = await asyncio.gather(*(h.directory.find(str(a.id) if a.id % 2 else a.email) for a in made), h.directory.find("9999998"))
        assert found == [*made, None]
        assert h.reads == before + 1

    scenario(migrated_url, body)


def test_an_account_that_was_found_is_not_looked_up_again_and_the_oldest_of_too_many_is(migrated_url, monkeypatch):
    monkeypatch.setattr(directory, "ACCOUNTS_KEPT", 2)

    async def body(h):
        assert await h.directory.find("ann@example.org") is None
        made = [await h.directory.add_account(f"{name}@example.org", name) for name in ("ann", "bob", "cid")]
        found_reads = []
        for text in (
            "ann@example.org",
            "ann@example.org",
            str(made[1].id),
            str(made[1].id),
            str(made[2].id),
            str(made[1].id),
            "ann@example.org",
        ):
            before = h.reads
            assert (await h.directory.find(text)) in made
            found_reads.append(h.reads - before)
        assert found_reads == [1, 0, 1, 0, 1, 0, 1]

    scenario(migrated_url, body)


def test_a_look_up_that_the_database_refuses_is_refused_to_nobody_else(migrated_url):
    async def body(h):
        made = await h.directory.add_account("ann@example.org", "Ann")
        nul = "\0@example.org"  # no request gets as far with it; PostgreSQL takes no such text
        found = await asyncio.gather(h.directory.find("ann@example.org"), h.directory._account(nul), return_exceptions=True)
        assert found[0] == made
        assert found[1] is None or isinstance(found[1], Exception)

    scenario(migrated_url, body)


def test_one_account_an_e_mail_and_a_nickname_of_its_own_accord(migrated_url):
    async def body(h):
        await h.directory.add_account("ann@example.org", "Ann")
        with pytest.raises(DirectoryError, match=r"ann@example\.org already"):
            await h.directory.add_account("ANN@example.org", "Other")
        with pytest.raises(DirectoryError, match="is not an e-mail address"):
            await h.directory.add_account("ann", "Ann")
        with pytest.raises(DirectoryError, match="printable"):
            await h.directory.add_account("bob@example.org", "\x00")
        await h.runtime.sleep(1)
        bob = await h.directory.add_account("bob@example.org", "")
        assert bob.nickname == "bob"
        assert [a.email for a in await h.directory.list_accounts()] == ["ann@example.org", "bob@example.org"]

    scenario(migrated_url, body)


def test_a_number_that_is_taken_is_drawn_again(migrated_url):
    async def body(h):
        draws = iter([7, 7, 7, 8])
        h.runtime.random_below = lambda _: next(draws)
        first = await h.directory.add_account("a@example.org", "a")
        second = await h.directory.add_account("b@example.org", "b")
        assert (first.id, second.id) == (1_000_007, 1_000_008)

    scenario(migrated_url, body)


def test_lists_are_bounded():
    assert LIST_MAX == 10_000
