"""Bugs at the door and on the way out: signatures, JSON, amounts, policy, who may see what, where webhooks may go, what is logged."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

DOOR: Final = (
    Bug(
        name="signature-compared-letter-by-letter",
        plan="M29",
        room="core",
        history="The signature was compared with ==, which is the slower the more letters are right.",
        source="https://docs.python.org/3/library/hmac.html#hmac.compare_digest",
        edits=(
            Edit(
                "penstock.core.wire_signature:matches", "hmac.compare_digest(expected, signature.lower())", "expected == signature.lower()"
            ),
        ),
        seed=3,
    ),
    Bug(
        name="signature-not-checked",
        room="http",
        history="The digest was computed, and whatever stood in the header let everybody in.",
        edits=(Edit("penstock.core.wire_signature:matches", "return hmac", "return True or hmac"),),
        seed=3,
    ),
    Bug(
        name="strangers-get-a-signed-refusal",
        room="http",
        history="A wrong signature was refused in a signed answer: with one formula for requests and answers, a signing oracle.",
        edits=(
            Edit(
                "penstock.http.app:App._call",
                "        return answers.NOT_VERIFIED",
                "        known = await self._ports.merchants.by_app_id(headers.app_id.decode())\n"
                "        if known is None:\n"
                "            return answers.NOT_VERIFIED\n"
                "        return answers.signed(answers.NOT_VERIFIED.body, 11005, app_id=known.app_id, secret=known.secrets[0].reveal(),\n"
                "                              now_ms=self._runtime.now_ms())",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="lengthened-body-accepted",
        room="http",
        history="Bytes that are no UTF-8 were dropped: a body lengthened by SHA-256's length extension became a valid one.",
        source="https://en.wikipedia.org/wiki/Length_extension_attack",
        edits=(Edit("penstock.http.strict_json:_strict", 'body.decode("utf-8")', 'body.decode("utf-8", "ignore").replace("\\0", "")'),),
        seed=3,
    ),
    Bug(
        name="duplicate-keys-accepted",
        plan="M30",
        room="http",
        history="A field that stood twice was taken as it stood last, while who had checked the request read the first.",
        source="https://www.rfc-editor.org/rfc/rfc8259#section-4",
        edits=(Edit("penstock.http.strict_json:_object", "if len(found) != len(pairs):", "if not found and pairs:"),),
        seed=3,
    ),
    Bug(
        name="negative-amount",
        plan="M5",
        room="core",
        history="The check of the balance ignored the sign: withdrawing -5 made the balance larger.",
        edits=(
            Edit(
                "penstock.core.money:parse_units",
                "    match = _DECIMAL",
                '    if text.startswith("-"):\n        return -parse_units(text[1:], decimals)\n    match = _DECIMAL',
            ),
            Edit("penstock.orders.accept:Accept._value", "if units <= 0:", "if units == 0:"),
        ),
        seed=3,
    ),
    Bug(
        name="decimal-of-28-digits",
        plan="M32",
        room="core",
        history="Amounts went through a decimal of default precision, which keeps 28 digits and rounds the rest away.",
        source="https://docs.python.org/3/library/decimal.html",
        edits=(
            Edit(
                "penstock.core.money:parse_units",
                'return int((whole + fraction.ljust(decimals, "0")) or "0")',
                'return int((__import__("decimal").Decimal(text) * 10**decimals) if fraction else (whole or "0") + "0" * decimals)',
            ),
        ),
        seed=3,
    ),
    Bug(
        name="float-amount",
        room="core",
        history="Amounts went through a float: seventeen digits, and the last one a guess.",
        edits=(
            Edit(
                "penstock.core.money:parse_units",
                'return int((whole + fraction.ljust(decimals, "0")) or "0")',
                "return round(float(text) * 10**decimals)",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="digits-of-any-script",
        room="core",
        history="What Python calls digits was taken for an amount, Arabic ones too: what people approved is not what was paid.",
        edits=(
            Edit(
                "penstock.core.money:parse_units",
                "_DECIMAL.fullmatch(text)",
                r're.compile(r"(\d+)(?:\.(\d+))?").fullmatch(text)',
            ),
        ),
        seed=3,
    ),
    Bug(
        name="timestamp-not-checked",
        room="http",
        history="A signed request held for ever: whoever recorded one could send it again next year.",
        edits=(Edit("penstock.core.wire_signature:is_timely", "<= WINDOW_S", ">= 0"),),
        seed=3,
    ),
    Bug(
        name="repeat-with-other-content",
        plan="M24",
        room="orders",
        history="A repeated id was answered with the first order whatever the request said this time.",
        edits=(Edit("penstock.orders.intake:_repeat", "if fingerprint in (draft.fingerprint, draft.former):", "if True:"),),
        seed=3,
    ),
    Bug(
        name="another-merchants-orders",
        room="orders",
        history="Orders were found by the merchant's own id alone: a merchant who guessed it read somebody else's (BOLA).",
        source="https://owasp.org/API-Security/editions/2023/en/0xa1-broken-object-level-authorization/",
        edits=(
            Edit(
                "penstock.orders.store:OrderStore._find",
                "tx.all(_BY_KEY, ",
                'tx.all(_BY_KEY.replace("order_key.merchant_id = k.merchant_id AND ", ""), ',
            ),
            Edit(
                "penstock.orders.store:OrderStore._find",
                'orders = {(row["merchant_id"], row["merchant_order_id"])',
                'orders = {row["merchant_order_id"]',
            ),
            Edit("penstock.orders.store:OrderStore._find", "orders[merchant_id, text]", "orders[text]"),
            Edit("penstock.orders.store:OrderStore._find", "if (merchant_id, text) in orders", "if text in orders"),
        ),
        seed=3,
    ),
    Bug(
        name="disabled-merchant-served",
        room="http",
        history="The operator had switched the merchant off, and only the web pages knew.",
        edits=(Edit("penstock.http.gate:admit", "if merchant.disabled:", "if False:"),),
        seed=3,
    ),
    Bug(
        name="own-answer-comes-back",
        room="http",
        history="A signed answer or webhook sent back was a valid request, because one formula signs all three.",
        edits=(Edit("penstock.http.app:App._answer", "_refuse_our_own(fields)", "pass"),),
        seed=3,
    ),
    Bug(
        name="policy-not-asked",
        room="orders",
        history="One way to a withdrawal did not ask the operator's list of addresses that are not paid.",
        edits=(
            Edit(
                "penstock.orders.accept:Accept._destination",
                "if {destination.address, destination.address.lower()} & self._policy.deny_addresses:",
                "if {request.address} & self._policy.deny_addresses and not self._policy.withdrawals:",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="maximum-not-asked",
        room="orders",
        history="The operator's maximum was compared the wrong way round.",
        edits=(
            Edit(
                "penstock.orders.accept:Accept._value",
                "units > self._maximum.get(symbol, units)",
                "self._maximum.get(symbol, units) > units",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="tokens-sent-to-the-token",
        room="evm",
        history="The token's own contract was taken for a recipient; what is sent there is lost for ever.",
        edits=(Edit("penstock.rails.evm.rail:EvmRail.parse_destination", "if address in self._contracts:", "if False:"),),
        seed=3,
    ),
    Bug(
        name="webhook-judged-when-registered",
        plan="M27",
        room="webhooks",
        history="A webhook's name was resolved and judged once, when it was registered; later it led into the house (DNS rebinding).",
        source="https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html",
        edits=(Edit("penstock.webhooks.targets:judged", 'judge(canonical(text), reach) or ""', '""'),),
        seed=3,
    ),
    Bug(
        name="is-global-is-public",
        plan="M28",
        room="webhooks",
        history="`is_global` alone decided: it is true of NAT64, 6to4 and multicast, and behind 64:ff9b::a9fe:a9fe is a cloud's metadata.",
        source="https://docs.python.org/3/library/ipaddress.html",
        edits=(
            Edit(
                "penstock.webhooks.targets:judge",
                'if place == "denied"',
                "if not address.is_global",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="secret-in-an-errors-text",
        plan="M40",
        room="rails",
        history="A node that did not answer was logged with its address, and the address holds the key of the operator's account.",
        edits=(
            Edit(
                "penstock.rails.rpc:Http.json",
                'raise NodeUnreachable(f"{node.name}: {error}")',
                'raise NodeUnreachable(f"{node.url}: {error}")',
            ),
        ),
        seed=7,
    ),
    Bug(
        name="headers-in-the-log",
        plan="M40",
        room="http",
        history="What could not be answered was logged whole, with the merchant's secret in it.",
        edits=(
            Edit(
                "penstock.http.app:App._answer",
                "        self._admit(caller,",
                "        log.debug('http.request', caller=caller)\n        self._admit(caller,",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="redirects-followed",
        plan="M26",
        room="webhooks",
        history="A receiver answered 302 to a cloud's metadata, and the sender went there.",
        source="https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html",
        edits=(
            Edit(
                "penstock.webhooks.line:_Reading.on_header",
                "name = name.lower()",
                "name = name.lower()\n    if name == b'location':\n        type(self).location = value.decode()",
            ),
            Edit(
                "penstock.webhooks.targets:HttpTargets.post",
                "return Reply(",
                "from penstock.webhooks.line import _Reading\n"
                "        if 300 <= status < 400:\n"
                "            return await self.post(_Reading.location, headers, body)\n"
                "        return Reply(",
            ),
        ),
        test="tests/integration/test_webhook_sinks.py::test_a_redirect_is_an_answer_and_never_followed",
    ),
)
