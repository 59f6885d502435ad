"""A pin manifest and the weights that lie beside it, read and verified; and those of the shipped model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.errors import PinError
from appliance.core.pin import Manifest, verify_open_file

SHIPPED: Final = Path(__file__).with_name("tiny-reader.json")
"""Pin of the shipped model."""
_MOST_BYTES: Final = 1 << 20  # of a manifest


@dataclass(frozen=True)
class PinnedModel:
    """A manifest and the weights it pins.

    Attributes:
        manifest: The pin.
        weights: Where the first pinned file lies; its bytes were the pinned ones when it was read.
    """

    manifest: Manifest
    weights: Path


def read_model(manifest: Path = SHIPPED) -> PinnedModel:
    """Read a pin manifest with the weights that lie beside it, and verify them.

    Raises:
        PinError: If the manifest is none, or the weights are missing or others than it pins.
    """
    try:
        with manifest.open("rb") as file:
            value = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise PinError(f"{manifest} is no pin manifest", hint="name a manifest (.json)") from error
    pin = Manifest.parse(value, PinError)
    weights = manifest.with_name(pin.files[0].path)
    try:
        with weights.open("rb") as file:
            verify_open_file(file, pin.files[0], "files.0")
    except OSError as error:
        raise PinError(f"no weights {weights}", hint="they lie beside the manifest that pins them") from error
    return PinnedModel(pin, weights)
