"""Defects that are planted into the product, one at a time and in this process alone, so that the simulation shows that it finds them.

`patch` plants one, `bug` says what it is, the lists are by room and family, `lane` looks for all of them. No product room can import this
(import contract in pyproject.toml), and `serve` never does.
"""
