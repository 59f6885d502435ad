"""What runs on a compute node and may see content: the engine, the cell. And the notary, which never sees any."""
