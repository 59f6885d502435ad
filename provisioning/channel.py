"""What the node client needs of a connection. `provisioning.ssh` has the real one; tests have a socket pair."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """A byte stream to one run of the forced command. Every call raises UnavailableError when the other end is gone."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of `data`."""

    def receive_line(self, limit: int, timeout_s: float) -> bytes:
        """Return the next line without its newline; a line longer than `limit` bytes is a failure."""

    def close(self) -> None:
        """Close the stream."""


class Connection(Protocol):
    """A connection that carries any number of channels."""

    def open_channel(self) -> Channel:
        """Start the forced command once more, connecting first if need be.

        Raises:
            UnavailableError: If the node cannot be reached.
            RefusedError: If the node does not show the pinned host key.
        """

    def close(self) -> None:
        """Close the connection and all of its channels."""
