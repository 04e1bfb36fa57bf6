"""Lightning: payments of BOLT 11 invoices by a node of the operator's own."""
