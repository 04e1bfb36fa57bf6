-- The block that as many nodes as must agree had reached when they were last asked of an attempt; NULL where fewer answered. Until then a look
-- at the treasury cannot tell our own payment from a stranger's.
ALTER TABLE attempt ADD COLUMN seen_block {INT}
