"""Images that are there twice, in a set or in training and validation set: the same bytes or nearly the same look."""

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
BITS_APART = 48  # of 480, 2 * SIDE * (SIDE - 1): thumbnails further apart aren't compared any more
ALIKE = 0.98  # correlation of the thumbnails' grey values
PLAIN = 2.0  # grey levels; thumbnails that vary less have nothing to tell them by
ROWS = 2048  # of the table of all pairs at a time


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


def compare_images(train, val, findings, bars):
    """Adds images of one `validation.Examination` that another one has, too."""
    leaked = _compare_bytes(train, val, findings)
    indices = [index for index in range(val.images.ids.size) if index not in leaked]
    paths = [val.images.paths[index] for index in indices]
    on_progress = counting_bar(bars, "Comparing pictures", len(paths) + len(train.images.paths))
    val_thumbnails = make_thumbnails(paths, on_progress)
    train_thumbnails = make_thumbnails(train.images.paths, on_progress)
    for row, match in find_look_alikes(val_thumbnails, train_thumbnails).tolist():
        number = val.images.own_ids[indices[row]]
        sentence = f"Image {number} in {val.source.path} ({paths[row]}) looks like {train.images.paths[match]}."
        findings.add("leaked_copy", number, sentence, paths[row])


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


def make_thumbnails(paths, on_progress):
    """Small grey copies of N images, upright, float32 [N, SIDE, SIDE]; NaN for an image that can't be decoded.

    `on_progress` is called with the number of images done since the last call.
    """
    thumbnails = np.full([len(paths), SIDE, SIDE], np.nan, np.float32)
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for index, thumbnail in enumerate(pool.map(_thumbnail, paths, chunksize=16)):
            on_progress(1)
            if thumbnail is not None:
                thumbnails[index] = thumbnail
    return thumbnails


def _thumbnail(path):
    try:
        with Image.open(path) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))  # a JPEG is decoded at an eighth of its size
            upright = ImageOps.exif_transpose(image.reduce(max(1, min(image.size) // (4 * SIDE))))
            grey = upright.convert("F" if upright.mode[0] in "IF" else "L").convert("F")
            return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    except Exception:  # Pillow raises whatever its format plugins run into; such files are reported elsewhere
        return None


def find_look_alikes(thumbnails, others):
    """Pairs of images that look the same but for size, compression, brightness or contrast.

    A difference hash (which of two neighbouring grey values is larger, along rows and columns) finds candidates in one
    matrix product; the correlation of the grey values decides.

    Args:
        thumbnails, others: [N, SIDE, SIDE] and [M, SIDE, SIDE] from `make_thumbnails`.

    Returns:
        [pairs, 2] int64, one for each of the N that has a counterpart: its index and its best counterpart's.
    """
    if not len(thumbnails) or not len(others):
        return np.zeros([0, 2], np.int64)
    (hashes, greys), (other_hashes, other_greys) = _hashes_and_greys(thumbnails), _hashes_and_greys(others)
    pairs = []
    for start in range(0, len(thumbnails), ROWS):
        agreement = hashes[start : start + ROWS] @ other_hashes.T
        first, second = np.nonzero(agreement >= hashes.shape[1] - 2 * BITS_APART)
        first = first + start
        correlation = np.einsum("ij,ij->i", greys[first], other_greys[second])
        kept = np.flatnonzero(correlation >= ALIKE)
        kept = kept[np.argsort(-correlation[kept], kind="stable")]
        first, second = first[kept], second[kept]
        pairs.append(np.stack([first, second], axis=1)[np.unique(first, return_index=True)[1]])
    return np.concatenate(pairs)


def _hashes_and_greys(thumbnails):
    """(hash [N, bits] as -1 and 1, grey values [N, SIDE * SIDE] of mean 0 and length 1); hash 0 for plain ones."""
    thumbnails = np.nan_to_num(thumbnails)
    signs = [np.where(np.diff(thumbnails, axis=axis) > 0, 1, -1).reshape(len(thumbnails), -1) for axis in (1, 2)]
    greys = thumbnails.reshape(len(thumbnails), -1)
    greys = greys - greys.mean(axis=1, keepdims=True)
    is_telling = greys.std(axis=1) >= PLAIN
    length = np.maximum(np.linalg.norm(greys, axis=1, keepdims=True), 1e-6)
    hashes = np.concatenate(signs, axis=1).astype(np.float32) * is_telling[:, None]
    return hashes, (greys / length).astype(np.float32)
