"""How glibc frees memory in a process that handles content."""

from __future__ import annotations

OVERWRITE_FREED = {"GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"}
"""Environment: freed memory is overwritten with this byte's complement (mallopt(3), M_PERTURB; glibc manual, "Memory
Allocation Tunables"). Without a cache for each thread, which would keep small pieces as they are."""
