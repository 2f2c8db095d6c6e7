"""Thumbnails: pictures go to the fleet as bytes and come back small, the quickest first. Writes contact-sheet.png here.

    pip install pillow                # here, and where the workers are
    python examples/thumbnails.py [URL]

The address is the first argument, or EVERFAAS_URL, or http://127.0.0.1:8000. The pictures are made up: landscapes of
some hills before a sky, each with a seed of its own.
"""

from __future__ import annotations

import concurrent.futures
import io
import math
import random
import sys

from PIL import Image, ImageDraw, ImageOps

from everfaas_core import ApiUnreachable, Client, NotLoadable

PICTURES = 20
SIZE = (1600, 1200)
THUMBNAIL = (200, 150)
COLUMNS, GAP = 5, 10
SHEET = "contact-sheet.png"


def thumbnail(picture: bytes, size: tuple[int, int]) -> bytes:
    """Return a picture, cut and scaled to a size. Runs on the fleet."""
    with Image.open(io.BytesIO(picture)) as image:
        small = ImageOps.fit(image.convert("RGB"), size)
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()


def landscape(seed: int) -> bytes:
    """Return a made-up picture, as a JPEG file."""
    dice = random.Random(seed)
    width, height = SIZE
    hour = dice.random()  # colours go from blue to red
    image = Image.linear_gradient("L").resize(SIZE)
    image = ImageOps.colorize(image, (int(40 + 150 * hour), 90, int(180 - 60 * hour)), (255, int(240 - 90 * hour), 200))
    draw = ImageDraw.Draw(image)
    x, y, radius = dice.randrange(width), dice.randrange(height // 2), dice.randrange(50, 130)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), (255, 250, int(230 - 100 * hour)))
    for hill in range(4):
        base, waves = height * (0.5 + 0.12 * hill), [(dice.uniform(0.5, 3), dice.uniform(0, 6)) for _ in range(3)]
        tops = [base + 60 * sum(math.sin(a * 6 * x / width + b) for a, b in waves) for x in range(0, width + 1, 10)]
        outline = [(10 * n, top) for n, top in enumerate(tops)]
        draw.polygon([(0, height), *outline, (width, height)], (20, int(110 - 25 * hill), int(80 - 18 * hill)))
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def main() -> None:
    wide, high = THUMBNAIL[0] + GAP, THUMBNAIL[1] + GAP
    sheet = Image.new("RGB", (COLUMNS * wide + GAP, PICTURES // COLUMNS * high + GAP), "white")
    with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        # The first thumbnails are made while the next pictures are.
        places = {client.submit(thumbnail, landscape(seed), THUMBNAIL): seed for seed in range(PICTURES)}
        for future in concurrent.futures.as_completed(places):  # futures are those of the standard library
            row, column = divmod(places[future], COLUMNS)
            with Image.open(io.BytesIO(future.result())) as small:
                sheet.paste(small, (GAP + column * wide, GAP + row * high))
    sheet.save(SHEET)
    print(f"{len(places)} thumbnails of {SIZE[0]} × {SIZE[1]} pixels, see {SHEET}")


if __name__ == "__main__":
    try:
        main()
    except (ApiUnreachable, NotLoadable) as error:  # they say how to start one, and what a worker can't import
        sys.exit(str(error))
