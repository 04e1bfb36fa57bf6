-- The continuous audit: how far it has read, what it found, and what makes a rewritten history visible.

-- A hash over the rows that an entry decided besides amounts: what was accepted, how it ended, which transaction paid. '' in entries of
-- before, and where there are none. The batch's hash covers it.
ALTER TABLE entry ADD COLUMN covers TEXT NOT NULL DEFAULT '';
CREATE INDEX entry_batch ON entry (batch_id);
CREATE INDEX attempt_resource_attempt ON attempt_resource (attempt_id);
CREATE INDEX orders_open ON orders (id) WHERE state NOT IN ('succeeded', 'failed');

-- What operators do is one chain of its own, numbered without gaps. Rows of before have no number.
ALTER TABLE operator_action ADD COLUMN number {INT} NULL;
ALTER TABLE operator_action ADD COLUMN previous_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE operator_action ADD COLUMN hash TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX operator_action_number ON operator_action (number);

-- One row: who audits now, and when the last pass ended. Also the lock under which operator actions are numbered.
CREATE TABLE audit_run (
    id {INT} PRIMARY KEY CHECK (id = 1),
    lease TEXT NOT NULL,
    lease_until_ms {INT} NOT NULL,
    ended_at_ms {INT} NOT NULL
) {STRICT};
INSERT INTO audit_run (id, lease, lease_until_ms, ended_at_ms) VALUES (1, '', 0, 0);

-- The chains of all committers tied together: the heads that moved since the row before, and the hash of that row.
CREATE TABLE audit_checkpoint (
    number {INT} PRIMARY KEY,
    at_ms {INT} NOT NULL,
    heads TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
) {STRICT};

-- How far the last pass has read each committer's chain, and the sums of all postings up to there.
CREATE TABLE audit_head (
    committer TEXT PRIMARY KEY,
    number {INT} NOT NULL,
    hash TEXT NOT NULL
) {STRICT};
CREATE TABLE audit_balance (
    holder TEXT NOT NULL,
    coin_id TEXT NOT NULL,
    available {AMOUNT} NOT NULL,
    reserved {AMOUNT} NOT NULL,
    PRIMARY KEY (holder, coin_id)
) {STRICT};
CREATE TABLE audit_total (
    account TEXT NOT NULL,
    coin_id TEXT NOT NULL,
    amount {AMOUNT} NOT NULL,
    PRIMARY KEY (account, coin_id)
) {STRICT};

-- What the last passes found. A person who resumes the network acknowledges it: the same finding does not stop anything again.
CREATE TABLE audit_finding (
    digest TEXT PRIMARY KEY,
    invariant TEXT NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('stop', 'alert')),
    text TEXT NOT NULL,
    chain TEXT NOT NULL,
    coin_id TEXT NOT NULL,
    first_at_ms {INT} NOT NULL,
    acknowledged_at_ms {INT}
) {STRICT}
