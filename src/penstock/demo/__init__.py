"""The demo: a story told by the real programs on loopback, and nothing that only it can do."""
