"""The attacks with requests: forged, reflected, malformed, to addresses that are almost right (test plan, C9, E1, E2, E4, E6, E7)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

from penstock.catalog import Catalog
from penstock.networks import RAILS, Site
from penstock.prove.callers import addresses, bodies, forgery
from penstock.prove.callers.forgery import Forged
from penstock.prove.callers.lines import Line, Reply, as_headers, json_bytes
from penstock.prove.callers.ring import PATHS, READ_ONLY, Ring
from penstock.rails.base import InvalidDestination
from penstock.runtime import SystemRuntime

BALANCE: Final = 14000
RESEND: Final = {"start_timestamp": 1_700_000_000}
ADDRESS_REFUSED: Final = frozenset({14003, 14007, 14008, 11000})
OWN: Final = {
    "ETH": "0x" + "aa" * 20,
    "TRX": "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH",
    "XRP": "rsA2LpzuawewSBQXkiju3YQTMzW13pAAdW",
    "BTC": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
}
RSS_GROWTH_MAX: Final = 50 * 1024 * 1024


async def forgeries(ring: Ring) -> None:
    """E4: nothing that the secret did not sign is taken, whichever part of it is true."""
    source = random.Random(ring.seed)
    money = json_bytes(ring.withdrawal("forged"))
    resend = json_bytes({"start_timestamp": 1_700_000_000})
    makers: list[Iterator[Forged]] = [
        forgery.bit_flips(ring.rich, money, source),
        forgery.cuts_and_lookalikes(ring.rich, money, source),
        forgery.cuts_and_lookalikes(ring.rich, resend, source),
        forgery.extensions(ring.rich, money, source),
    ]

    def work() -> Iterator[Forged]:
        yield from forgery.out_of_time(ring.rich, money)
        while True:
            yield from (next(maker) for maker in makers)

    async def job(line: Line, forged: Forged) -> None:
        path = "/webhook/resend" if forged.body == resend else "/withdraw"
        reply = await ring.send(line, path, forged.headers, forged.body)
        ring.counts["forged_signatures"] += 1
        _refused(ring, path, forged, reply)

    await ring.unharmed("a forged signature", lambda: ring.over_lines(work(), job, 2_000 * ring.size))


def _refused(ring: Ring, path: str, forged: Forged, reply: Reply) -> None:
    replay = f"{path} {forged.how} {list(forged.headers)!r:.600} {forged.body!r:.400}"
    ring.judge(forged.how, reply, replay)
    if not forgery.is_refused(forged, reply):
        ring.breach(f"{path}: {forged.how} was answered with {reply.code} {reply.msg!r}", replay=replay)
    elif forged.refusals == {forgery.UNVERIFIED} and reply.is_signed:
        ring.breach(f"{path}: {forged.how} was refused with a signature, which is a request in a stranger's hands", replay=replay)


async def strangers(ring: Ring) -> None:
    """E7: without a secret every call gives the same bytes, and has no effect."""
    answers: set[bytes] = set()
    work = iter([(path, forged) for path in PATHS for forged in forgery.unauthenticated(json_bytes(ring.withdrawal("stranger")))])

    async def job(line: Line, piece: tuple[str, Forged]) -> None:
        path, forged = piece
        reply = await ring.send(line, path, forged.headers, forged.body)
        ring.counts["unauthenticated_calls"] += 1
        answers.add(reply.body)
        _refused(ring, path, forged, reply)

    await ring.unharmed("a stranger", lambda: ring.over_lines(work, job, 10_000))
    if len(answers) > 1:
        ring.breach(f"strangers get {len(answers)} different answers, so they can tell cases apart")


async def reflections(ring: Ring) -> None:
    """E6: our answers and webhooks sent back to us, as they are and lengthened, and each call's body at every other call."""
    signed: list[tuple[str, dict[str, str], bytes]] = [("webhook", headers, body) for headers, body in ring.letters]
    known = ring.withdrawal("letter-0")
    bodies_of = {path: [json_bytes(fields), b"[]"] for path, fields in {"/withdraw": known, **READ_ONLY}.items()}
    bodies_of["/webhook/resend"] = [b"[]"]  # one that is understood counts, and other attacks look at the books meanwhile
    bodies_of["/withdraw"] += [
        json_bytes({**known, "value": "2"}),
        json_bytes({**known, "merchant_order_id": "dear", "value": "1000000000"}),
    ]
    for path, bodies_asked in bodies_of.items():
        for body in bodies_asked:
            status, headers, raw = await ring.program.post(f"/ccpayment/v1{path}", body, ring.rich.headers(body))
            if status == 200 and ring.rich.made(headers, raw):
                signed.append((f"answer of {path}", {n: headers[n.lower()] for n in ("Appid", "Timestamp", "Sign")}, raw))
    ring.counts["signed_things_of_ours"] += len(signed)

    def work() -> Iterator[tuple[str, Forged]]:
        for how, headers, body in signed:
            for path in PATHS:
                yield path, Forged(how, as_headers(headers), body, frozenset({forgery.INVALID, forgery.EXPIRED}))
                for suffix in forgery.SUFFIXES[-2:]:
                    yield from ((path, one) for one in forgery.lengthened(ring.rich, headers, body, suffix, f"{how}, lengthened"))
        # A body of one call is no other call with an effect: the signature does not say which call it was made for.
        for own, fields in {**READ_ONLY, "/withdraw": ring.withdrawal("elsewhere"), "/webhook/resend": RESEND}.items():
            for path in PATHS:
                if path != own:
                    yield path, _harmless(ring, fields)

    async def job(line: Line, piece: tuple[str, Forged]) -> None:
        path, forged = piece
        reply = await ring.send(line, path, forged.headers, forged.body)
        ring.counts["reflections"] += 1
        if forged.refusals:
            _refused(ring, path, forged, reply)
        else:
            ring.judge(f"the body of another call at {path}", reply, repr(forged.body))

    await ring.unharmed("something of ours that came back", lambda: ring.over_lines(work(), job, 20_000))


def _harmless(ring: Ring, fields: Any) -> Forged:
    body = json_bytes(fields)
    return Forged("another call's body", as_headers(ring.rich.headers(body)), body, frozenset())


async def malformed(ring: Ring) -> None:
    """E1, E2: signed by a merchant without money, so whatever is understood ends at the balance, and nothing is left behind."""
    source = random.Random(ring.seed + 1)
    valid = {**READ_ONLY, "/withdraw": ring.withdrawal("fuzz"), "/webhook/resend": {"start_timestamp": 1_700_000_000}}
    weighted = {**valid, "/withdraw/": ring.withdrawal("fuzz"), "/withdraw": ring.withdrawal("fuzz", merchant_pays_fee=True, memo="7")}
    weighted.pop("/webhook/resend")  # a call that is understood counts as one of the merchant's 25 a day
    work = bodies.hostile_bodies(weighted, source)
    resident = ring.program.resident_bytes()

    async def job(line: Line, piece: tuple[str, bytes]) -> None:
        path, body = piece
        reply = await ring.send(line, path, as_headers(ring.poor.headers(body)), body)
        ring.counts["malformed_bodies"] += 1
        replay = f"{path} {body!r:.800}"
        ring.judge("a malformed body", reply, replay)
        if path.startswith("/withdraw") and reply.code in (BALANCE, 10000):
            ring.counts["bodies_understood"] += 1
            if not bodies.may_be_a_withdrawal(body):
                ring.breach(f"a body outside the grammar was understood: {reply.code}", replay=replay)

    await ring.unharmed("a malformed body", lambda: ring.over_lines(work, job, 3_000 * ring.size))
    grown = ring.program.resident_bytes() - resident
    if grown > RSS_GROWTH_MAX:
        ring.breach(f"malformed bodies made the process grow by {grown >> 20} MiB")


async def almost_addresses(ring: Ring) -> None:
    """C9: every codec against an independent decoder, many in this process and some through the whole gateway."""
    catalog, runtime, source = Catalog.load(), SystemRuntime(), random.Random(ring.seed + 2)
    for chain, seeds in addresses.SEEDS.items():
        network = catalog.network(chain)
        assert network is not None  # noqa: S101  the catalogue that we ship has them
        rail = RAILS[network.family](Site(network, ("http://nobody.example/",), _never, runtime, (OWN[chain],), (), None))
        texts = addresses.mutations(seeds, source)
        for _ in range(2_500 * ring.size):
            text = next(texts)
            try:
                taken = rail.parse_destination(text, "").address != ""
            except InvalidDestination:
                taken = False
            ring.counts["addresses"] += 1
            ring.counts["valid_addresses"] += taken
            if taken != addresses.JUDGES[chain](text):
                ring.breach(f"{chain}: {text!r} was {'taken' if taken else 'refused'}, and an independent decoder does not", replay=text)
    runtime.close()
    await ring.unharmed("an address that is almost right", lambda: _addresses_by_wire(ring, catalog, source))


async def _addresses_by_wire(ring: Ring, catalog: Catalog, source: random.Random) -> None:
    invoice = (await ring.program.control("LIGHTNING", do="invoice", units="2100000"))["invoice"]
    texts = {chain: addresses.mutations(addresses.SEEDS[chain], source) for chain in ("ETH", "TRX", "XRP")}
    texts["LIGHTNING"] = addresses.mutations((invoice,), source)
    values = {"ETH": "5", "TRX": "50", "XRP": "50", "LIGHTNING": "2100"}

    def judge(chain: str, text: str) -> bool:
        if chain == "LIGHTNING":  # nobody but the payee can sign another one
            return text in (invoice, invoice.upper(), f"lightning:{invoice}")
        # X-addresses say which network they are for, and devnet is a test network.
        return addresses.JUDGES[chain](text) and not (chain == "XRP" and text.startswith("X"))

    def work() -> Iterator[tuple[str, str]]:
        while True:
            yield from ((chain, next(found)) for chain, found in texts.items())

    async def job(line: Line, piece: tuple[str, str]) -> None:
        chain, text = piece
        token = catalog.native(chain)
        fields = ring.withdrawal("address", address=text, token_id=token.id, value=values[chain], merchant_pays_fee=True)
        body = json_bytes(fields)
        reply = await ring.send(line, "/withdraw", as_headers(ring.poor.headers(body)), body)
        ring.counts["addresses_by_wire"] += 1
        ring.judge(f"an address of {chain}", reply, text)
        if text.isdigit() or "@" in text:
            return  # names an account inside the house
        if (reply.code == BALANCE) != judge(chain, text) or reply.code not in {*ADDRESS_REFUSED, BALANCE}:
            ring.breach(f"{chain}: {text!r} was answered with {reply.code} {reply.msg!r}", replay=text)

    await ring.over_lines(work(), job, 400 * ring.size)


async def _never(*_: Any, **__: Any) -> tuple[int, bytes]:
    raise AssertionError("an address is judged without asking anybody")
