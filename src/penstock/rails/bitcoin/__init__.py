"""Bitcoin: P2WPKH hot wallets, many orders in one transaction, bytes by embit, a Bitcoin Core compatible node."""
