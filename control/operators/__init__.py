"""API tokens of operators."""
