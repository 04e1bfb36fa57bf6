"""Proof on a user's own machine: the real rooms over a virtual clock, with crashes, and an auditor behind them."""
