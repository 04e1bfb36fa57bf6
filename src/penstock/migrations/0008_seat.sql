-- Who works on this database: binds, signs and sends. number is drawn anew by whoever takes the seat, and every transaction of a worker
-- makes sure of it; beat moves while the worker lives. 0: nobody has worked here yet. holder is empty after a clean stop.
CREATE TABLE seat (
    number {INT} PRIMARY KEY,
    one {INT} NOT NULL UNIQUE CHECK (one = 1),
    holder TEXT NOT NULL,
    beat {INT} NOT NULL
) {STRICT};
INSERT INTO seat (number, one, holder, beat) VALUES (0, 1, '', 0)
