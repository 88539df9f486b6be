"""Independent readers of picture files."""

from __future__ import annotations

import json
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.programs import required


def opened(data: bytes) -> Image.Image:
    picture = Image.open(BytesIO(data))
    picture.load()
    return picture


def exiftool(data: bytes, folder: Path, *options: str) -> dict[str, Any]:
    """What exiftool, which shares no code with us or Pillow, reads from the file."""
    file = folder / "picture"
    file.write_bytes(data)
    done = subprocess.run([required("exiftool"), "-json", "-G1", *options, str(file)], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found
