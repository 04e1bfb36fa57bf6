"""A Bitcoin network in a box: blocks judged by Core's own consensus code, Core's words on its RPC."""
