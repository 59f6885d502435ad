"""The machine under it all: what of its memory could reach a disk or another reader, and how large it is."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.doctor.finding import Finding, Status, judge

_GIB = 2**30
_LEAST_MEMORY_GIB, _LEAST_CORES = 4, 2


def observe_machine() -> list[Finding]:
    """Return the findings about memory, tracing and hardware."""
    return [
        _swap(),
        _core_pattern(),
        _ptrace_scope(),
        _init_on_free(),
        _virtualised(),
        _memory(),
        _ecc(),
        _cores(),
        _gpus(),
    ]


def _swap() -> Finding:
    areas = len(_read("/proc/swaps").splitlines()) - 1
    return Finding(
        "swap",
        "off" if areas == 0 else "on",
        "off",
        judge(areas == 0, Status.FAIL),
        "memory that is swapped out is content on a disk; a cell refuses to serve",
        "swapoff -a, and remove the swap lines from /etc/fstab",
    )


def _core_pattern() -> Finding:
    pattern = _read("/proc/sys/kernel/core_pattern").strip()
    return Finding(
        "core_pattern",
        pattern or "empty",
        "|/bin/false",
        judge(pattern in ("", "|/bin/false"), Status.WARN),
        "a cell cannot be dumped anyhow; NGINX, which content passes through, could be",
        "sysctl -w kernel.core_pattern='|/bin/false'",
    )


def _ptrace_scope() -> Finding:
    scope = _read("/proc/sys/kernel/yama/ptrace_scope").strip()
    return Finding(
        "ptrace_scope",
        scope or "no Yama",
        2,
        judge(scope in ("2", "3"), Status.WARN),
        "who may read another process's memory",
        "sysctl -w kernel.yama.ptrace_scope=2" if scope else "boot a kernel with the Yama module",
    )


def _init_on_free() -> Finding:
    on = "init_on_free=1" in _read("/proc/cmdline").split()
    return Finding(
        "init_on_free",
        "on" if on else "not on the command line",
        "on",
        judge(on, Status.WARN),
        "the kernel overwrites memory when it is freed, so that nothing of a gone cell is left in RAM",
        "add init_on_free=1 to the kernel's command line",
    )


def _virtualised() -> Finding:
    flags = next((line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    virtual = " hypervisor" in flags or _read("/sys/hypervisor/type") != ""
    return Finding(
        "hardware",
        "virtual machine" if virtual else "bare metal",
        "bare metal",
        judge(not virtual, Status.WARN),
        "whoever runs the host of a virtual machine can read its memory, pause it and copy it",
        "serve clients from a machine of your own",
    )


def _memory() -> Finding:
    gib = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB)
    meaning, hint = "weights, and a KV cache for each session", "add memory or pin a smaller model"
    status = judge(gib >= _LEAST_MEMORY_GIB, Status.WARN)
    return Finding("memory", gib, _LEAST_MEMORY_GIB, status, meaning, hint, "GiB")


def _ecc() -> Finding:
    there = any(Path("/sys/devices/system/edac/mc").glob("mc[0-9]*"))
    return Finding(
        "memory errors",
        "corrected (ECC)" if there else "no ECC seen",
        "corrected (ECC)",
        judge(there, Status.WARN),
        "a flipped bit in weights or in a receipt is noticed late or never",
        "use ECC memory, and load the EDAC module of its controller",
    )


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    status = judge(cores >= _LEAST_CORES, Status.WARN)
    return Finding("cores", cores, _LEAST_CORES, status, "divided among the seats", "use a larger machine")


def _gpus() -> Finding:
    meaning = "optional: without one the processor computes"
    names = _gpu_names()
    return Finding("GPU", ", ".join(names) if names else "none", "optional", Status.OK, meaning)


def _gpu_names() -> list[str]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        devices = range(pynvml.nvmlDeviceGetCount())
        return [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(n))) for n in devices]
    finally:
        pynvml.nvmlShutdown()


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""
