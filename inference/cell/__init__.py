"""The cell: one client's confined server. `stub` confines the process, then `main` serves in it."""
