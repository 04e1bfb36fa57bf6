"""The real program on a machine that fails: its installation, how it is killed, and what is asked of it meanwhile."""
