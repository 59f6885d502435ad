"""Receipts and alarms."""
