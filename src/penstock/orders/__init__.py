"""The life of a withdrawal, in order: accept, intake, send, follow, settle. `board` knows prices of the road, `treasury` its coins."""
