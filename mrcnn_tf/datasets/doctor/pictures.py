"""Pictures that are there twice: the same bytes, or nearly the same look."""

import collections
import concurrent.futures
import hashlib

import numpy as np
from PIL import Image, ImageOps

WORKERS = 4
SIDE = 16  # of the thumbnails that are compared
BITS_APART = 48  # of 480, 2 * SIDE * (SIDE - 1): thumbnails further apart aren't compared any more
ALIKE = 0.98  # correlation of the thumbnails' grey values
PLAIN = 2.0  # grey levels; thumbnails that vary less have nothing to tell them by
ROWS = 2048  # of the table of all pairs at a time


def same_bytes(headers):
    """Groups of files with the same content.

    Only files of one length are read.

    Args:
        headers: {path: data.image_files.ImageFile}.

    Returns:
        list of lists of paths, in the order given.
    """
    by_size = collections.defaultdict(list)
    for path, header in headers.items():
        if header.size > 0:
            by_size[header.size].append(path)
    doubtful = [path for paths in by_size.values() if len(paths) > 1 for path in paths]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        digests = pool.map(_digest, doubtful, chunksize=16)
    groups = collections.defaultdict(list)
    for path, digest in zip(doubtful, digests, strict=True):
        groups[digest].append(path)
    return [paths for digest, paths in groups.items() if digest and len(paths) > 1]


def _digest(path):
    try:
        with open(path, "rb") as file:
            digest = hashlib.blake2b()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.digest()
    except OSError:
        return None


def thumbnails(paths, on_progress):
    """Small grey copies of pictures, upright.

    Args:
        paths: list of str.
        on_progress: called with the number of pictures done since the last call.

    Returns:
        float32 [N, SIDE, SIDE]; NaN for a picture that can't be decoded.
    """
    result = np.full([len(paths), SIDE, SIDE], np.nan, np.float32)
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for place, picture in enumerate(pool.map(_thumbnail, paths, chunksize=16)):
            on_progress(1)
            if picture is not None:
                result[place] = picture
    return result


def _thumbnail(path):
    try:
        with Image.open(path) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))  # a JPEG is decoded at an eighth of its size
            upright = ImageOps.exif_transpose(image.reduce(max(1, min(image.size) // (4 * SIDE))))
            grey = upright.convert("F" if upright.mode[0] in "IF" else "L").convert("F")
            return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    except Exception:  # Pillow raises whatever its format plugins run into; such files are reported elsewhere
        return None


def look_alikes(pictures, others):
    """Pairs of pictures that look the same but for size, compression, brightness or contrast.

    A difference hash (which of two neighbouring grey values is larger, along rows and columns) finds candidates in one
    matrix product; the correlation of the grey values decides.

    Args:
        pictures, others: [N, SIDE, SIDE] and [M, SIDE, SIDE] from `thumbnails`.

    Returns:
        [pairs, 2] int64, one for each of the N that has a counterpart: its place and its best counterpart's.
    """
    if not len(pictures) or not len(others):
        return np.zeros([0, 2], np.int64)
    signs, flat = zip(*(_signs_and_values(values) for values in (pictures, others)), strict=True)
    pairs = []
    for start in range(0, len(pictures), ROWS):
        agreement = signs[0][start : start + ROWS] @ signs[1].T
        one, other = np.nonzero(agreement >= signs[0].shape[1] - 2 * BITS_APART)
        alike = np.einsum("ij,ij->i", flat[0][one + start], flat[1][other])
        kept = np.flatnonzero(alike >= ALIKE)
        kept = kept[np.argsort(-alike[kept], kind="stable")]
        one, other = one[kept] + start, other[kept]
        pairs.append(np.stack([one, other], axis=1)[np.unique(one, return_index=True)[1]])
    return np.concatenate(pairs)


def _signs_and_values(pictures):
    """(hash [N, bits] as -1 and 1, grey values [N, SIDE * SIDE] of mean 0 and length 1); zeros for plain ones."""
    pictures = np.nan_to_num(pictures)
    signs = [np.where(np.diff(pictures, axis=axis) > 0, 1, -1).reshape(len(pictures), -1) for axis in (1, 2)]
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    telling = flat.std(axis=1) >= PLAIN
    length = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    hashes = np.concatenate(signs, axis=1).astype(np.float32) * telling[:, None]
    return hashes, (flat / length).astype(np.float32)
