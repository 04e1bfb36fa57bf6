"""The XRP Ledger in a box: xrpl-py's codec, real signatures and ids, a payment engine in its own words."""
