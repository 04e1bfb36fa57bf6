"""One suite for every chain family and every backend."""
