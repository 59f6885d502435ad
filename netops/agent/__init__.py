"""The agent: root on a node, reached over a Unix socket only, and the one writer of what a bundle says.

`memory` remembers over restarts, `passes` makes the world what a bundle says, `operations` answers requests, `server`
speaks to the socket, `service` puts them together.
"""
