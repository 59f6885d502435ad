"""The lab: several machines on one, made of Linux namespaces.

Each machine has network, mount, PID, UTS and IPC namespaces of its own and a root that is an overlay over the host's:
it sees the host's programs, and everything it writes lands on a disk image (or in RAM) that only it has. Its PID 1 is
`appliance.lab.init`; when that ends, the kernel ends every process of the machine, and with the last of them the
namespaces, the interfaces, the mounts and the loop device. So a lab leaves nothing behind, even after a crash.

Nothing is simulated: WireGuard, nftables, NGINX, sshd, the cells, the console are the real ones.
"""
