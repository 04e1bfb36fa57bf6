"""The whole product in one process and in virtual time: its house, the networks, the people around it, the weather, and who judges."""
