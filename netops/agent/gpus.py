"""The node's GPUs as numbers, by NVML (nvidia-ml-py). A node without an NVIDIA driver has none.

Source: NVML API reference, nvmlDeviceGetMemoryInfo, nvmlDeviceGetUtilizationRates, nvmlDeviceGetTemperature.
"""

from __future__ import annotations

from typing import Any

import pynvml


def observe_gpus() -> list[dict[str, int]]:
    """Return for each GPU: index, memory_total_bytes, memory_used_bytes, utilisation_percent, temperature_c.

    What a GPU does not tell is left out of its entry.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no library
        return []
    try:
        return [_observe(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _observe(index: int) -> dict[str, int]:
    gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
    values = {"index": index}
    for name, read in _READINGS.items():
        try:
            values[name] = int(read(gpu))
        except pynvml.NVMLError:  # not supported by this GPU
            continue
    return values


_READINGS: dict[str, Any] = {
    "memory_total_bytes": lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).total,
    "memory_used_bytes": lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "utilisation_percent": lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "temperature_c": lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
}
