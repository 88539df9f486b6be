"""Makes docs/overpaint.png, the picture of the README, from what `overpaint demo` painted.

overpaint demo                      # paints into ./overpaint-demo
python docs/picture.py overpaint-demo

The demo's own contact sheet is too large for a README: this lays the same pictures out smaller, in 256 colours.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from overpaint_producer.cli.demo import PROMPT, STRENGTHS, STYLES, Shot
from overpaint_producer.sheet import Row, Tile, contact_sheet, save_sheet

TARGET = Path(__file__).with_name("overpaint.png")
SIDE = 128
"""Pixels of one picture on the page."""


def readme_picture(pictures: Path) -> Image.Image:
    """The page, from the folder that holds the demo's pictures."""

    def tile(shot: Shot, caption: str) -> Tile:
        with Image.open(pictures / f"{shot.name}.png") as picture:
            return Tile(picture.convert("RGB"), caption)

    page = contact_sheet(
        "One picture, repainted",
        [
            Row(f'"{PROMPT}", at growing strength', [tile(shot, f"strength {shot.strength:g}") for shot in STRENGTHS]),
            Row("The same picture in six styles", [tile(shot, shot.prompt) for shot in STYLES]),
        ],
        side=SIDE,
    )
    return page.quantize(256, kmeans=3)


def main() -> None:
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "overpaint-demo")
    save_sheet(readme_picture(demo / "pictures"), TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
