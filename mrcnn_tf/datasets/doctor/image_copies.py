"""Images that are there twice, in a set or in training and validation set: the same bytes or nearly the same look.

Flipped, turned and cropped copies aren't found, nor copies of plain pictures.
"""

import collections
import concurrent.futures
import os

import numpy as np
from PIL import Image, ImageOps

from mrcnn_tf.common.files import sha256
from mrcnn_tf.common.problems import counting_bar
from mrcnn_tf.datasets.annotation_checks import find_indices

WORKERS = 4
SIDE = 16  # of the thumbnails that are compared
ALIKE = 0.98  # correlation of the thumbnails' grey values
BITS_APART = 80  # of 480, 2 * SIDE * (SIDE - 1); strong compression of dark pictures changes as many, noise alone 240
PLAIN = 2.0  # grey levels; thumbnails that vary less have nothing to tell them by
TILE = 2048  # sides of the part of the table of all pairs that is looked at at a time
MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F")  # Pillow's that can be reduced


def check_copies(images, records, findings):
    """Adds images whose files have the same bytes. The one with the most annotations counts as the original.

    Returns:
        list of lists of paths with the same bytes, the original first.
    """
    index_of = {os.path.normpath(path): index for index, path in reversed(list(enumerate(images.paths)))}
    groups = group_same_bytes({path: images.headers[images.paths[index]] for path, index in index_of.items()})
    owners = find_indices(images.ids, np.asarray(records.image_ids))
    counts = np.bincount(owners + 1, minlength=images.ids.size + 1)[1:]
    for group in groups:
        group.sort(key=lambda path: (-counts[index_of[path]], index_of[path]))
        for path in group[1:]:
            number = images.own_ids[index_of[path]]
            sentence = f"Image {number} in {findings.file} ({path}) is the same picture as {group[0]}."
            findings.add("duplicate_picture", number, sentence, path)
    return groups


def check_similar(images, copies, thumbnails, findings):
    """Adds images that look like an earlier one of the set; those with the same bytes are reported by `check_copies`.

    Args:
        images: CheckedImages, I of them.
        copies: the groups from `check_copies`.
        thumbnails: {path: [SIDE, SIDE]} from `make_thumbnails`.
        findings: Findings.
    """
    repeated = {os.path.normpath(path) for group in copies for path in group[1:]}
    first_index = {os.path.normpath(path): index for index, path in reversed(list(enumerate(images.paths)))}
    indices = sorted(index for path, index in first_index.items() if path not in repeated)
    paths = [images.paths[index] for index in indices]
    for row, match in find_look_alikes(_stack(thumbnails, paths)).tolist():
        number = images.own_ids[indices[row]]
        sentence = f"Image {number} in {findings.file} ({paths[row]}) looks like {paths[match]}."
        findings.add("similar_picture", number, sentence, paths[row])


def compare_images(train, val, findings):
    """Adds images of one `validation.Examination` that another one has, too; both have thumbnails."""
    leaked = _compare_bytes(train, val, findings)
    indices = [index for index in range(val.images.ids.size) if index not in leaked]
    paths = [val.images.paths[index] for index in indices]
    thumbnails = [_stack(val.thumbnails, paths), _stack(train.thumbnails, train.images.paths)]
    for row, match in find_look_alikes(*thumbnails).tolist():
        number = val.images.own_ids[indices[row]]
        sentence = f"Image {number} in {val.source.path} ({paths[row]}) looks like {train.images.paths[match]}."
        findings.add("leaked_copy", number, sentence, paths[row])


def _stack(thumbnails, paths):
    return np.array([thumbnails[path] for path in paths], np.float32).reshape(-1, SIDE, SIDE)


def _compare_bytes(train, val, findings):
    """Adds validation images that are in the training set; returns their indices, a set."""
    original = {path: path for path in train.images.paths}
    headers = {path: dataset.images.headers[path] for dataset in (train, val) for path in dataset.images.paths}
    for group in group_same_bytes(headers):
        source = next((path for path in group if path in original), None)
        original.update((path, source) for path in group if source)
    leaked = [index for index, path in enumerate(val.images.paths) if path in original]
    for index in leaked:
        path, number = val.images.paths[index], val.images.own_ids[index]
        sentence = f"Image {number} in {val.source.path} ({path}) is {original[path]} of {train.source.path}."
        findings.add("leaked_image", number, sentence, path)
    return set(leaked)


def group_same_bytes(headers):
    """Groups of files with the same content, lists of paths; only files of one length are read."""
    by_size = collections.defaultdict(list)
    for path, header in headers.items():
        if header.size > 0:
            by_size[header.size].append(path)
    candidates = [path for paths in by_size.values() if len(paths) > 1 for path in paths]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        digests = pool.map(_digest, candidates, chunksize=16)
    groups = collections.defaultdict(list)
    for path, digest in zip(candidates, digests, strict=True):
        groups[digest].append(path)
    return [paths for digest, paths in groups.items() if digest and len(paths) > 1]


def _digest(path):
    try:
        return sha256(path)
    except OSError:
        return None


def make_thumbnails(paths, bars):
    """Small grey copies of images, upright, {path: float32 [SIDE, SIDE]}; NaN for an image that can't be decoded."""
    paths = list(dict.fromkeys(paths))
    on_progress = counting_bar(bars, "Comparing pictures", len(paths))
    thumbnails = {}
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for path, thumbnail in zip(paths, pool.map(_thumbnail, paths, chunksize=16), strict=True):
            on_progress(1)
            thumbnails[path] = thumbnail
    return thumbnails


def _thumbnail(path):
    try:
        with Image.open(path) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))  # a JPEG is decoded at an eighth of its size
            if image.mode not in MODES:
                image = image.convert("F" if image.mode[0] == "I" else "RGB")
            upright = ImageOps.exif_transpose(image.reduce(max(1, min(image.size) // (4 * SIDE))))
            grey = upright.convert("F" if upright.mode[0] in "IF" else "L").convert("F")
            return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    except Exception:  # Pillow raises whatever its format plugins run into; such files are reported elsewhere
        return np.full([SIDE, SIDE], np.nan, np.float32)


def find_look_alikes(thumbnails, others=None):
    """Pairs of images that look the same but for size, compression, brightness or contrast.

    The grey values of both correlate, and so do the signs of their slopes (which of two neighbouring grey values is
    larger, along rows and columns): those tell pictures of the same light and dark areas apart.

    Args:
        thumbnails: [N, SIDE, SIDE], as from `make_thumbnails`.
        others: [M, SIDE, SIDE], those to look among; None: for each of the N, those before it.

    Returns:
        [pairs, 2] int64, one for each of the N that has a counterpart: its index and its best counterpart's.
    """
    hashes, greys = _hashes_and_greys(thumbnails)
    other_hashes, other_greys = (hashes, greys) if others is None else _hashes_and_greys(others)
    best, match = np.zeros(len(greys), np.float32), np.zeros(len(greys), np.int64)
    for start in range(0, len(greys), TILE):
        rows = slice(start, start + TILE)
        for left in range(0, len(other_greys) if others is not None else start + 1, TILE):
            columns = slice(left, left + TILE)
            alike = greys[rows] @ other_greys[columns].T
            alike[alike < ALIKE] = 0
            if others is None and left == start:
                alike = np.tril(alike, -1)
            found = np.flatnonzero(alike.any(axis=1))
            if not found.size:
                continue
            alike, index = alike[found], start + found
            alike[hashes[index] @ other_hashes[columns].T < hashes.shape[1] - 2 * BITS_APART] = 0
            column, value = alike.argmax(axis=1), alike.max(axis=1)
            better = value > best[index]
            best[index[better]], match[index[better]] = value[better], left + column[better]
    found = np.flatnonzero(best)
    return np.stack([found, match[found]], axis=1)


def _hashes_and_greys(thumbnails):
    """(hash [N, bits] as -1 and 1, grey values [N, SIDE * SIDE] of mean 0 and length 1); hash 0 for plain ones."""
    thumbnails = np.nan_to_num(thumbnails)
    bits = SIDE * (SIDE - 1)
    signs = [np.where(np.diff(thumbnails, axis=axis) > 0, 1, -1).reshape(-1, bits) for axis in (1, 2)]
    greys = thumbnails.reshape(-1, SIDE * SIDE)
    greys = greys - greys.mean(axis=1, keepdims=True)
    is_telling = greys.std(axis=1) >= PLAIN
    length = np.maximum(np.linalg.norm(greys, axis=1, keepdims=True), 1e-6)
    hashes = np.concatenate(signs, axis=1).astype(np.float32) * is_telling[:, None]
    return hashes, (greys / length).astype(np.float32)
