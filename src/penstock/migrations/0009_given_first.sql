-- Where a rail withholds bytes after a time, `signed` says that they were given to nobody. The program of before wrote that they were given
-- only when they had been: what it left as signed may be with a node.
UPDATE attempt SET state = 'sent' WHERE state = 'signed'
