"""Networks in a box: simulated nodes that speak the real node protocols, for demo, sandbox and tests. Nothing here is money.

A network is a plain state machine driven by the clock it is given; `server` puts it on a loopback port, a simulation calls it
directly. docs/devnet.md says what a real network does differently.
"""
