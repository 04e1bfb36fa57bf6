"""What callers saw of the program, call by call, and whether one order of things explains it."""
