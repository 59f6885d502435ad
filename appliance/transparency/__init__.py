"""The transparency log of receipts: a Merkle tree whose heads are signed, and proofs that anybody can check offline.

Read in this order: `merkle` (hashes and proofs), `tiles` (the tree as files), `note` (signed text), `checkpoint` (signed tree
heads), `proof` (what a client keeps). Formats are those of C2SP (signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof,
tlog-tiles) over RFC 6962; docs/spec/log-v1.md says which of their choices are ours.
"""
