"""Values and rules; standard library only, no clock, no randomness, no I/O."""
