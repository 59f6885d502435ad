"""The cell: what serves one client once `inference.confinement.stub` has confined the process. Begins in `main`."""
