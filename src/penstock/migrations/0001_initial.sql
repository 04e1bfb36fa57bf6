-- The first schema. One text for both databases; the words in braces are explained in db.py.
-- Times are Unix milliseconds; ids are snowflakes unless said otherwise.

-- Who may draw ids: a leased worker number, and the last millisecond it may have used.
CREATE TABLE worker_lease (
    worker {INT} PRIMARY KEY CHECK (worker BETWEEN 0 AND 1023),
    holder TEXT NOT NULL,
    leased_until_ms {INT} NOT NULL,
    last_ms {INT} NOT NULL
) {STRICT};

-- Who may call the API. Merchant 0 is the house itself and has no credentials.
CREATE TABLE merchant (
    id {INT} PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    app_id TEXT NOT NULL UNIQUE,
    webhook_url TEXT NOT NULL,
    disabled {INT} NOT NULL CHECK (disabled IN (0, 1)),
    ip_allow TEXT NOT NULL,
    created_at_ms {INT} NOT NULL,
    changed_at_ms {INT} NOT NULL
) {STRICT};

-- Two may be valid at once during a rotation; valid_until_ms NULL is the current one.
CREATE TABLE merchant_secret (
    id {INT} PRIMARY KEY,
    merchant_id {INT} NOT NULL REFERENCES merchant (id),
    sealed TEXT NOT NULL,
    created_at_ms {INT} NOT NULL,
    valid_until_ms {INT}
) {STRICT};
CREATE INDEX merchant_secret_merchant ON merchant_secret (merchant_id);

-- People inside the house: a numeric id of 7 digits, one account an e-mail address.
CREATE TABLE account (
    id {INT} PRIMARY KEY CHECK (id BETWEEN 1000000 AND 9999999),
    email TEXT NOT NULL UNIQUE,
    nickname TEXT NOT NULL,
    created_at_ms {INT} NOT NULL
) {STRICT};

-- What we owe a holder (m:<merchant> or u:<account>) in one coin.
CREATE TABLE balance (
    id {INT} PRIMARY KEY,
    holder TEXT NOT NULL,
    coin_id TEXT NOT NULL,
    available {AMOUNT} NOT NULL CHECK ({NOT_NEGATIVE available}),
    reserved {AMOUNT} NOT NULL CHECK ({NOT_NEGATIVE reserved}),
    version {INT} NOT NULL,
    UNIQUE (holder, coin_id)
) {STRICT};

-- One row a money transaction: a hash chain per committer, over the entries it wrote.
CREATE TABLE batch (
    id {INT} PRIMARY KEY,
    committer TEXT NOT NULL,
    number {INT} NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    at_ms {INT} NOT NULL,
    UNIQUE (committer, number)
) {STRICT};

-- A balanced fact. Immutable: errors are reversed, never edited.
CREATE TABLE entry (
    id {INT} PRIMARY KEY,
    batch_id {INT} NOT NULL,
    ref_kind TEXT NOT NULL,
    ref_id TEXT NOT NULL,
    posting_kind TEXT NOT NULL,
    chain TEXT,
    block {INT},
    note TEXT NOT NULL,
    at_ms {INT} NOT NULL,
    UNIQUE (ref_kind, ref_id, posting_kind)
) {STRICT};
CREATE INDEX entry_block ON entry (chain, block) WHERE block IS NOT NULL;

CREATE TABLE posting (
    entry_id {INT} NOT NULL,
    line {INT} NOT NULL,
    account TEXT NOT NULL,
    coin_id TEXT NOT NULL,
    amount {AMOUNT} NOT NULL,
    PRIMARY KEY (entry_id, line)
) {STRICT};

-- Settles repeats for ever: never partitioned, never archived.
CREATE TABLE order_key (
    merchant_id {INT} NOT NULL,
    merchant_order_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    order_id {INT} NOT NULL,
    created_at_ms {INT} NOT NULL,
    PRIMARY KEY (merchant_id, merchant_order_id)
) {STRICT};

-- What may be paid only once for ever, whoever asks (a Lightning payment hash), and the order that took it.
CREATE TABLE single_use (
    name TEXT PRIMARY KEY,
    order_id {INT} NOT NULL
) {STRICT};

-- The merchant's wish. due_at_ms is NULL when nobody has to act on it.
CREATE TABLE orders (
    id {INT} PRIMARY KEY,
    record_id {INT} NOT NULL,
    merchant_id {INT} NOT NULL,
    merchant_order_id TEXT NOT NULL,
    payer TEXT NOT NULL,
    recipient TEXT NOT NULL,
    address TEXT NOT NULL,
    destination TEXT NOT NULL,
    memo TEXT NOT NULL,
    token_id TEXT NOT NULL,
    coin_id TEXT NOT NULL,
    crypto TEXT NOT NULL,
    chain TEXT NOT NULL,
    contract TEXT NOT NULL,
    merchant_pays_fee {INT} NOT NULL CHECK (merchant_pays_fee IN (0, 1)),
    value {AMOUNT} NOT NULL,
    fee {AMOUNT} NOT NULL,
    net {AMOUNT} NOT NULL,
    reserve {AMOUNT} NOT NULL,
    fee_usd TEXT NOT NULL,
    token_rate TEXT NOT NULL,
    native_rate TEXT NOT NULL,
    gas_quoted {AMOUNT} NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'held', 'sending', 'confirming', 'quarantined', 'succeeded', 'failed')),
    wire {INT} NOT NULL CHECK (wire BETWEEN 0 AND 3),
    hold_reason TEXT NOT NULL,
    fail_reason TEXT NOT NULL,
    txid TEXT NOT NULL,
    decided_at_ms {INT},
    due_at_ms {INT},
    lease TEXT NOT NULL,
    lease_until_ms {INT} NOT NULL,
    CHECK ((state IN ('succeeded', 'failed')) = (decided_at_ms IS NOT NULL)),
    CHECK (state <> 'held' OR hold_reason <> '')
) {STRICT};
CREATE INDEX orders_due ON orders (due_at_ms) WHERE due_at_ms IS NOT NULL;

-- Appended on every change of state after acceptance.
CREATE TABLE order_history (
    id {INT} PRIMARY KEY,
    order_id {INT} NOT NULL,
    at_ms {INT} NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    reason TEXT NOT NULL
) {STRICT};
CREATE INDEX order_history_order ON order_history (order_id);

-- A hot address of one network. Nonce and liquidity are taken under this row's lock.
CREATE TABLE lane (
    id {INT} PRIMARY KEY,
    chain TEXT NOT NULL,
    number {INT} NOT NULL,
    address TEXT NOT NULL,
    next_slot {INT} NOT NULL,
    halted TEXT NOT NULL,
    UNIQUE (chain, number)
) {STRICT};

-- What the chain showed of a lane at a final block, and what the books say of the same block.
CREATE TABLE treasury_seen (
    lane_id {INT} NOT NULL REFERENCES lane (id),
    token_id TEXT NOT NULL,
    block {INT} NOT NULL,
    observed {AMOUNT} NOT NULL,
    at_ms {INT} NOT NULL,
    PRIMARY KEY (lane_id, token_id)
) {STRICT};

-- The single coins of a lane where the chain keeps money in such (Bitcoin: outpoints), as last seen final and unspent.
CREATE TABLE lane_coin (
    lane_id {INT} NOT NULL REFERENCES lane (id),
    name TEXT NOT NULL,
    units {AMOUNT} NOT NULL,
    PRIMARY KEY (lane_id, name)
) {STRICT};

-- Owns one conflict resource for ever. outflow is in base units of the token, fee_cap and gas_paid in those of the native coin.
CREATE TABLE attempt (
    id {INT} PRIMARY KEY,
    lane_id {INT} NOT NULL REFERENCES lane (id),
    slot {INT} NOT NULL,
    token_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('bound', 'signed', 'sent', 'included', 'final', 'dead')),
    outflow {AMOUNT} NOT NULL,
    fee_cap {AMOUNT} NOT NULL,
    gas_paid {AMOUNT},
    native_rate TEXT NOT NULL DEFAULT '',
    block {INT},
    txid TEXT NOT NULL,
    seen TEXT NOT NULL,
    seen_at_ms {INT},
    created_at_ms {INT} NOT NULL,
    due_at_ms {INT},
    lease TEXT NOT NULL,
    lease_until_ms {INT} NOT NULL,
    UNIQUE (lane_id, slot)
) {STRICT};
CREATE INDEX attempt_due ON attempt (due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX attempt_live ON attempt (lane_id, slot) WHERE state IN ('bound', 'signed', 'sent', 'included');

CREATE INDEX attempt_block ON attempt (lane_id, block) WHERE block IS NOT NULL;

-- What an attempt owns beside its slot, for ever: outpoints it spends, a payment hash.
CREATE TABLE attempt_resource (
    lane_id {INT} NOT NULL REFERENCES lane (id),
    name TEXT NOT NULL,
    attempt_id {INT} NOT NULL REFERENCES attempt (id),
    PRIMARY KEY (lane_id, name)
) {STRICT};

-- Which orders an attempt is for; an order has at most one live attempt.
CREATE TABLE attempt_order (
    attempt_id {INT} NOT NULL REFERENCES attempt (id),
    order_id {INT} NOT NULL REFERENCES orders (id),
    live {INT} NOT NULL CHECK (live IN (0, 1)),
    PRIMARY KEY (attempt_id, order_id)
) {STRICT};
CREATE UNIQUE INDEX attempt_order_live ON attempt_order (order_id) WHERE live = 1;
CREATE INDEX attempt_order_order ON attempt_order (order_id);

-- One signed transaction on the attempt's resource; txid and raw are NULL until the signer's bytes are stored.
CREATE TABLE version (
    id {INT} PRIMARY KEY,
    attempt_id {INT} NOT NULL REFERENCES attempt (id),
    number {INT} NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pay', 'cancel', 'open')),
    intent TEXT NOT NULL,
    txid TEXT UNIQUE,
    raw TEXT,
    sends {INT} NOT NULL,
    verdict TEXT NOT NULL,
    sent_at_ms {INT},
    created_at_ms {INT} NOT NULL,
    UNIQUE (attempt_id, number),
    CHECK ((txid IS NULL) = (raw IS NULL))
) {STRICT};

-- What a version pays: one order, or many where the chain can batch. In base units of the token; weight is the order's part of the
-- transaction, by which its fee is split for display.
CREATE TABLE version_order (
    version_id {INT} NOT NULL REFERENCES version (id),
    order_id {INT} NOT NULL REFERENCES orders (id),
    output {INT} NOT NULL,
    amount {AMOUNT} NOT NULL,
    weight {INT} NOT NULL,
    PRIMARY KEY (version_id, order_id)
) {STRICT};

-- Events for merchants, written in the transaction that decides the order. tries counts the sends since it was last queued: a resend
-- begins the schedule anew, while sends goes on.
CREATE TABLE outbox (
    id {INT} PRIMARY KEY,
    order_id {INT} NOT NULL,
    merchant_id {INT} NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'delivered', 'parked')),
    sends {INT} NOT NULL,
    tries {INT} NOT NULL DEFAULT 0,
    result TEXT NOT NULL,
    created_at_ms {INT} NOT NULL,
    ended_at_ms {INT},
    due_at_ms {INT},
    lease TEXT NOT NULL,
    lease_until_ms {INT} NOT NULL,
    CHECK ((state = 'due') = (due_at_ms IS NOT NULL))
) {STRICT};
CREATE UNIQUE INDEX outbox_order ON outbox (order_id);
CREATE INDEX outbox_due ON outbox (merchant_id, due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX outbox_decided ON outbox (merchant_id, created_at_ms);

-- Every send of an event, kept for the merchant's questions.
CREATE TABLE webhook_send (
    outbox_id {INT} NOT NULL REFERENCES outbox (id),
    number {INT} NOT NULL,
    at_ms {INT} NOT NULL,
    took_ms {INT} NOT NULL,
    status {INT} NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (outbox_id, number)
) {STRICT};

-- Calls of /webhook/resend, for its limits.
CREATE TABLE resend_call (
    id {INT} PRIMARY KEY,
    merchant_id {INT} NOT NULL,
    at_ms {INT} NOT NULL
) {STRICT};
CREATE INDEX resend_call_merchant ON resend_call (merchant_id, at_ms);

-- What operators did by command, with their reason. Appended only.
CREATE TABLE operator_action (
    id {INT} PRIMARY KEY,
    at_ms {INT} NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL
) {STRICT}
