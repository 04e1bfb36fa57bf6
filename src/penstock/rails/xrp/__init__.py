"""The XRP Ledger and its sidechains: `codec` is pure, `rail` speaks to nodes."""
