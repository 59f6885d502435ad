"""Contracts that cross planes: names, signatures, bundle, policy, pin, receipt. Imports nothing else of ours."""
