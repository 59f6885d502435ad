"""The Sovereign Appliance: WireGuard in, OpenAI API inside, nothing kept, a receipt for every session."""

__version__ = "0.1.0"
