"""QR codes (ISO/IEC 18004) as SVG: paths with attributes, no style and no script, so that the page's policy admits them."""

from __future__ import annotations

import io

import segno
from django.utils.safestring import SafeString, mark_safe


def draw_code(text: str, title: str = "The WireGuard configuration as a QR code") -> SafeString:
    """Return a text as a QR code for a page.

    Args:
        text: At most 2953 bytes of UTF-8.
        title: What it is, for who cannot see it.
    """
    drawn = io.BytesIO()
    code = segno.make(text, error="l", micro=False)
    # A light ground of its own: on a dark page a code of light modules is not read by every camera.
    code.save(
        drawn,
        kind="svg",
        scale=4,
        border=4,
        xmldecl=False,
        svgns=False,
        omitsize=True,
        nl=False,
        svgclass="qr",
        lineclass=None,
        dark="#000",
        light="#fff",
        title=title,
    )
    return mark_safe(drawn.getvalue().decode("ascii"))  # noqa: S308 - segno writes coordinates, never the text
