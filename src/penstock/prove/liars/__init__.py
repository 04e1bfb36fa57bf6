"""Nodes that lie: what they say, in which words, and how it gets to whoever asked."""
