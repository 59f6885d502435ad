"""Retrieval: parse, chunk, embed, index, retrieve, assemble, cite. Knows nothing of HTTP.

Not part of this version: a cell answers without retrieval, and receipts say `retrieved_chunks: 0`.
"""
