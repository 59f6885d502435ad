"""Pinned models."""
