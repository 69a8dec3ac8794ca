"""Pictures that are there twice: the same bytes, or nearly the same look."""

import collections
import concurrent.futures
import hashlib

import numpy as np
from PIL import Image, ImageOps

from mrcnn_tf.datasets.doctor.findings import Findings

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


# A training set beside a validation set: pictures that are in both, and categories that aren't.
#

def compare(train, val, bars):
    """Looks for what makes results on a validation set wrong.

    Args:
        train, val: `Examination`s.
        bars: rich Progress.

    Returns:
        list of Finding about the validation set.
    """
    totals = {"image": len(val.source.images)}
    findings = Findings(val.source.path, totals)
    _compare_categories(train, val, findings)
    leaked = _compare_bytes(train, val, findings)
    rest = [row for row in range(val.images.ids.size) if row not in leaked]
    paths = [val.images.paths[row] for row in rest]
    looking = bars.add_task("Comparing pictures", total=len(paths) + len(train.images.paths))
    mine = thumbnails(paths, lambda number: bars.advance(looking, number))
    theirs = thumbnails(train.images.paths, lambda number: bars.advance(looking, number))
    for one, other in look_alikes(mine, theirs).tolist():
        number = int(val.images.ids[rest[one]])
        sentence = f"Image {number} in {val.source.path} ({paths[one]}) looks like {train.images.paths[other]}."
        findings.add("leaked_copy", number, sentence, paths[one])
    return findings.listed()


def _compare_bytes(train, val, findings):
    """Rows of validation images that are in the training set."""
    training = dict.fromkeys(train.images.paths)
    both = {path: one.images.headers[path] for one in (train, val) for path in one.images.paths}
    twin = {path: path for path in training}
    for group in same_bytes(both):
        source = next((path for path in group if path in training), None)
        twin.update((path, source) for path in group if source)
    leaked = {row for row, path in enumerate(val.images.paths) if path in twin}
    for row in sorted(leaked):
        path, number = val.images.paths[row], int(val.images.ids[row])
        sentence = f"Image {number} in {val.source.path} ({path}) is {twin[path]} of {train.source.path}."
        findings.add("leaked_image", number, sentence, path)
    return leaked


def _compare_categories(train, val, findings):
    names = [_names(one) for one in (train, val)]
    for number in sorted(names[0].keys() | names[1].keys()):
        mine, theirs = names[0].get(number), names[1].get(number)
        if mine != theirs:
            given = ((mine, train.source.path), (theirs, val.source.path))
            words = [f"{name!r} in {file}" for name, file in given if name is not None]
            missing = "" if len(words) == 2 else f" and absent from {(train if mine is None else val).source.path}"
            findings.add("other_categories", number, f"Category {number} is {' and '.join(words)}{missing}.")
    for number in sorted(_things(train) ^ _things(val)):
        if number in names[0] and number in names[1]:
            here, there = (train, val) if number in _things(train) else (val, train)
            words = f"is a thing in {here.source.path} and stuff in {there.source.path}"
            findings.add("other_isthing", number, f"Category {number} ({names[0][number]!r}) {words}.")


def _things(examination):
    """Ids of the categories that a json counts instances of, as one of instances does of all."""
    if examination.annotated is None:
        return {category.id for category in examination.source.records.things}
    return set(_names(examination))


def _names(examination):
    """{id: name} of the usable categories."""
    records = (one for one in examination.source.categories if isinstance(one, dict))
    return {one["id"]: one["name"] for one in records if type(one.get("id")) is int and type(one.get("name")) is str}
