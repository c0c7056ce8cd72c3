"""Writes images as the binary PGM (grey) or PPM (colour) files that classify reads.

    python to_pgm.py IMAGE…

Each is written beside the image. Its size stays: scale and crop it before, if need be.
"""

import sys
from pathlib import Path

from PIL import Image

for name in sys.argv[1:]:
    image = Image.open(name)
    is_grey = image.mode in ("1", "L")
    image.convert("L" if is_grey else "RGB").save(
        Path(name).with_suffix(".pgm" if is_grey else ".ppm")
    )
