-- What was moved out of these tables into files (ledger/archive). said is JSON: how far each committer's chain went with it, counts, and a hash
-- over archive_total as it was then. Each row follows the one before.
CREATE TABLE archive (
    number {INT} PRIMARY KEY,
    at_ms {INT} NOT NULL,
    before_ms {INT} NOT NULL,
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    said TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
) {STRICT};

-- How far each committer's chain is in files. The audit goes on from there, whatever of it is still in the tables.
CREATE TABLE archive_head (
    committer TEXT NOT NULL,
    number {INT} NOT NULL,
    hash TEXT NOT NULL,
    archive {INT} NOT NULL REFERENCES archive (number),
    PRIMARY KEY (committer, number)
) {STRICT};

-- The sums of all postings up to those heads.
CREATE TABLE archive_total (
    account TEXT NOT NULL,
    coin_id TEXT NOT NULL,
    amount {AMOUNT} NOT NULL,
    PRIMARY KEY (account, coin_id)
) {STRICT};

-- In which archive the rest of an order or an attempt is; NULL: it is all here.
ALTER TABLE orders ADD COLUMN archive {INT} NULL REFERENCES archive (number);
ALTER TABLE attempt ADD COLUMN archive {INT} NULL REFERENCES archive (number);
CREATE INDEX orders_archive ON orders (archive, id) WHERE archive IS NOT NULL;
CREATE INDEX attempt_archive ON attempt (archive, id) WHERE archive IS NOT NULL;

{REFUSE UPDATE archive};
{REFUSE DELETE archive};
{REFUSE TRUNCATE archive};
{REFUSE UPDATE archive_head};
{REFUSE DELETE archive_head};
{REFUSE TRUNCATE archive_head};

-- The one way out of the books: what a recorded archive has.
{ALLOW DELETE posting};
{ALLOW DELETE entry};
{ALLOW DELETE batch};
{ALLOW DELETE order_history};
{REFUSE DELETE posting UNLESS EXISTS (SELECT 1 FROM entry JOIN batch ON batch.id = entry.batch_id JOIN archive_head
    ON archive_head.committer = batch.committer AND archive_head.number >= batch.number WHERE entry.id = OLD.entry_id)};
{REFUSE DELETE entry UNLESS EXISTS (SELECT 1 FROM batch JOIN archive_head
    ON archive_head.committer = batch.committer AND archive_head.number >= batch.number WHERE batch.id = OLD.batch_id)};
{REFUSE DELETE batch UNLESS EXISTS (SELECT 1 FROM archive_head
    WHERE archive_head.committer = OLD.committer AND archive_head.number >= OLD.number)};
{REFUSE DELETE order_history UNLESS EXISTS (SELECT 1 FROM orders WHERE orders.id = OLD.order_id AND orders.archive IS NOT NULL)}
