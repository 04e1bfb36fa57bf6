"""An EVM network in a box: real headers, real code execution, geth's words."""
