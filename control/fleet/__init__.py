"""Nodes and what they were sent."""
