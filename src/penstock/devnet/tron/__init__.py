"""A TRON network in a box: real protobuf bytes, real code execution, java-tron's words."""
