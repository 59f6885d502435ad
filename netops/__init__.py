"""What a node is on the network: WireGuard, nftables, NGINX, the files of its clients, and the agent that keeps them so.

    bundle ──desired──▶ State(want) ─┐
                                     ├─plan─▶ Plan(removals, additions) ──World.apply──▶ kernel, files, NGINX
    world ──World.observe──▶ State(have) ─┘

`model`, `actions`, `plan`, `simulate`, `desired`, `wireguard`, `nftables` and `nginx` are pure. `tunnel`, `firewall`,
`files`, `web` and `services` each read and change one part of the world; `world` puts them together; `agent` decides
when.
"""
