"""The notary: numbers, chains, signs and keeps the receipts of a node. It never sees content."""
