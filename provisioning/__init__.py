"""Reaching nodes: SSH with pinned host keys, and the client of the agent's protocol. Holds no product state."""
