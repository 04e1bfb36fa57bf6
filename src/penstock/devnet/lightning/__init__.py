"""Lightning in a box: an LND that pays, its channels, and a recipient who makes invoices."""
