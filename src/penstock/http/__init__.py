"""The merchant API: bytes to calls, answers to signed bytes. It reaches everything else through `ports`."""
