"""A drawn face that OpenCV's detector takes for one."""
import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def draw_face(size=96, at=(0.5, 0.5), height=0.8):
    """uint8 (size, size, 3): a face of a share of the picture's height around `at` (col, row)."""
    image = Image.new("RGB", (400, 400), (70, 90, 110))
    draw = ImageDraw.Draw(image)
    x, y, h = 400 * at[0], 400 * at[1], 400 * height / 2

    def oval(dx, dy, rx, ry, colour):
        draw.ellipse([x + h * (dx - rx), y + h * (dy - ry), x + h * (dx + rx), y + h * (dy + ry)],
                     fill=colour)
    oval(0, -0.1, 0.85, 1.0, (60, 40, 30))      # hair
    oval(0, 0.1, 0.7, 0.9, (225, 185, 160))     # skin
    for side in (-1, 1):
        oval(side * 0.3, -0.12, 0.2, 0.12, (150, 110, 95))   # socket
        oval(side * 0.3, -0.1, 0.15, 0.07, (240, 240, 240))
        oval(side * 0.3, -0.1, 0.07, 0.07, (30, 20, 20))
        oval(side * 0.3, -0.28, 0.22, 0.05, (70, 45, 35))    # brow
        oval(side * 0.45, 0.3, 0.16, 0.14, (235, 190, 170))  # cheek
    oval(0, 0.15, 0.08, 0.25, (240, 205, 180))  # nose
    oval(0, 0.37, 0.14, 0.05, (170, 120, 105))
    oval(0, 0.6, 0.28, 0.08, (150, 70, 70))     # mouth
    image = image.filter(ImageFilter.GaussianBlur(3))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
