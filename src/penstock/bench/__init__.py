"""How fast it is, on a user's own machine, beside a baseline measured in the same run."""
