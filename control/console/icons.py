"""Icons, drawn here: paths on a grid of 20 by 20, stroked in the colour of the text beside them."""

from __future__ import annotations

from typing import Final

ICONS: Final = {
    "overview": "M3 11.5 10 5l7 6.5M5 10v6.5h10V10",
    "alarm": "M10 3v1.5M5.5 14V9.5a4.5 4.5 0 0 1 9 0V14l1.5 1.5H4zM8.5 17.5h3",
    "client": "M10 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM4 16.5c.6-3 3-4.5 6-4.5s5.4 1.5 6 4.5",
    "device": "M3.5 5h13v8h-13zM8 16.5h4M10 13v3.5",
    "model": "M10 3l6.5 3.5v7L10 17l-6.5-3.5v-7zM3.5 6.5 10 10l6.5-3.5M10 10v7",
    "node": "M3.5 4h13v5h-13zM3.5 11h13v5h-13zM6.5 6.5h.01M6.5 13.5h.01M10 6.5h3.5M10 13.5h3.5",
    "receipt": "M5 3.5h10v13l-2.5-1.5-2.5 1.5-2.5-1.5L5 16.5zM7.5 7.5h5M7.5 10.5h5",
    "log": "M10 3.5v4M10 7.5 5.5 11M10 7.5l4.5 3.5M5.5 11v3M14.5 11v3M4 14h3v2.5H4zM13 14h3v2.5h-3z",
    "operator": "M10 3l6 2.5v4c0 3.5-2.5 6-6 7.5-3.5-1.5-6-4-6-7.5v-4zM7.5 10l2 2 3.5-4",
    "token": "M7 13.5a3.5 3.5 0 1 1 3.3-4.7H17v3h-2v2h-2.5v-2h-2.2A3.5 3.5 0 0 1 7 13.5ZM6.5 10h.01",
    "reference": "M7 6 3 10l4 4M13 6l4 4-4 4M11.5 4.5l-3 11",
    "good": "M4.5 10.5 8.5 14.5 15.5 6.5",
    "warn": "M10 3.5 17.5 16.5h-15zM10 8.5v3.5M10 14.3v.01",
    "bad": "M5.5 5.5l9 9M14.5 5.5l-9 9",
    "plain": "M6 10h8",
    "waiting": "M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM10 6.5V10l2.5 2",
    "add": "M10 4.5v11M4.5 10h11",
    "download": "M10 3.5v9M6.5 9 10 12.5 13.5 9M4 16.5h12",
    "next": "M8 5l5 5-5 5",
    "search": "M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4ZM12.7 12.7 16.5 16.5",
    "out": "M8 4H4.5v12H8M12 6.5 15.5 10 12 13.5M15.5 10H8",
}
