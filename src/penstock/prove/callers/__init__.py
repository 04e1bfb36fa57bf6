"""What hostile callers send, one file a kind of attack."""
