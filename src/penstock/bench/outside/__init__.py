"""What is outside of the house in a benchmark: a node that believes whatever it is given, and a receiver of webhooks, in one small process."""
