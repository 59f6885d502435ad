"""The log of receipts: verified receipts get a place in a Merkle tree, whose heads are signed (docs/spec/log-v1.md)."""
