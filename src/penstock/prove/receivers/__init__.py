"""Receivers of webhooks that mean harm or are merely broken, and the house that writes to them."""
