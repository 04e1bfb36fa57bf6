"""The lanes of `penstock prove`: each a way to try to break it, at any size."""
