"""The journal: what operators did, as a chain of events that goes into the log of receipts (docs/spec/audit-event-v1.md)."""
