"""TRON: TRX and TRC-20."""
