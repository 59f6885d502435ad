"""Clients and their devices."""
