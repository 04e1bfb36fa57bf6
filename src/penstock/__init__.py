"""Penstock: a self-hosted gateway for crypto withdrawals."""
