-- The seal over what an order pays to whom, made when it is accepted; '' for payouts inside the house, and for orders of before.
ALTER TABLE orders ADD COLUMN seal TEXT NOT NULL DEFAULT '';
