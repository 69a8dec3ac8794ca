"""Records OpenCV's bilinear resize of bytes: cv2.resize with INTER_LINEAR.

`opencv_resize.npz` holds `image0`, `image1`, ... and `resized0`, `resized1`, ..., uint8 [H, W, 3] each: an image that
is enlarged, shrunk, halved exactly (which OpenCV does by INTER_AREA), halved in one direction, stretched from one row
or one column, and kept. Made with Python 3.11, opencv-python-headless 5.0.0.93 and numpy 2.4.6 (x86-64) by

    python tests/golden/record_opencv_resize.py

4.5.5.64 and 4.12.0.88 give the same file.
"""

import pathlib

import cv2
import numpy as np

SIZES = [  # (height, width) before and after
    ((12, 16), (20, 27)),
    ((9, 7), (23, 16)),
    ((31, 23), (13, 9)),
    ((40, 5), (7, 19)),
    ((18, 26), (9, 13)),
    ((18, 13), (9, 13)),
    ((1, 6), (11, 20)),
    ((6, 1), (20, 11)),
    ((8, 9), (8, 9)),
]


def main():
    random, arrays = np.random.default_rng(21), {}
    for number, (old, (height, width)) in enumerate(SIZES):
        image = random.integers(0, 256, (*old, 3)).astype(np.uint8)
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        arrays |= {f"image{number}": image, f"resized{number}": resized}
    np.savez_compressed(pathlib.Path(__file__).with_name("opencv_resize.npz"), **arrays)


if __name__ == "__main__":
    main()
