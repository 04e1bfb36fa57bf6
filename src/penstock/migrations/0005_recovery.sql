-- What a start compares before it signs: the signer's journal with the attempts and their versions.

-- How far that was done: the entry of this number in the journal has this hash.
CREATE TABLE journal_checkpoint (
    id {INT} PRIMARY KEY CHECK (id = 1),
    number {INT} NOT NULL,
    hash TEXT NOT NULL,
    at_ms {INT} NOT NULL
) {STRICT};
INSERT INTO journal_checkpoint (id, number, hash, at_ms) VALUES (1, 0, '', 0);

-- Whether the journal was seen to have the version. Bytes without that, and a journal that says so without bytes, are few at any time.
ALTER TABLE version ADD COLUMN journaled {INT} NOT NULL DEFAULT 0;
CREATE INDEX version_unjournaled ON version (id) WHERE journaled = 0 AND raw IS NOT NULL;
CREATE INDEX version_unrestored ON version (id) WHERE journaled = 1 AND raw IS NULL;

-- What the journal has and the tables lack, until it is adopted. why is empty before the first look.
CREATE TABLE journal_stray (
    attempt_id {INT} NOT NULL,
    version {INT} NOT NULL,
    number {INT} NOT NULL,
    chain TEXT NOT NULL,
    intent TEXT NOT NULL,
    txid TEXT NOT NULL,
    dead TEXT NOT NULL,
    why TEXT NOT NULL,
    found_at_ms {INT} NOT NULL,
    PRIMARY KEY (attempt_id, version)
) {STRICT};

-- Names of orders that an adopted attempt pays and that are not here, with the reason of the person who let it go on.
CREATE TABLE spent_key (
    key TEXT PRIMARY KEY,
    attempt_id {INT} NOT NULL,
    txid TEXT NOT NULL,
    reason TEXT NOT NULL
) {STRICT};

-- Slots below next_slot that no attempt has: they are handed out before any other.
CREATE TABLE lane_gap (
    lane_id {INT} NOT NULL REFERENCES lane (id),
    slot {INT} NOT NULL,
    PRIMARY KEY (lane_id, slot)
) {STRICT};

-- Networks on which nothing is bound, signed or submitted because a start has not come to an end yet, and why.
CREATE TABLE recovery_hold (
    chain TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    since_ms {INT} NOT NULL
) {STRICT}
