"""One `CocoIndex` of all that a `DataConfig` names: jsons, maps, TFRecords, or several sources, mixed by weight."""

import dataclasses

import numpy as np

from mrcnn_tf.common.categories import read_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.order import Pool
from mrcnn_tf.data.tfrecord_index import load_record_index
from mrcnn_tf.datasets.coco_index import CocoIndex
from mrcnn_tf.datasets.read_coco import load_index, source_name


@dataclasses.dataclass
class Sources:
    """Datasets read as one.

    Attributes:
        names: list of str, their json files or patterns.
        index: CocoIndex. Ids of images are those of the files and may come twice in different sources: batches carry
            them for messages and as the seed of sampling, for which they needn't be unique.
        starts: list, the number of each source's first image, and that after the last.
        weights: list, each source's share of the images drawn, adding up to 1; None to draw every image once a pass.
    """

    names: list[str]
    index: CocoIndex
    starts: list[int]
    weights: list[float] | None

    @property
    def name(self):
        """All of them in one, for messages."""
        return ", ".join(self.names)


def load_sources(config):
    """Reads all datasets of `config`: its `sources`, or its `records`, or its jsons, maps and `images`.

    Args:
        config: settings.DataConfig. Where its `categories` are empty, those of the first source are taken.

    Returns:
        Sources.

    Raises:
        UserError: see `coco.load_index` and `tfrecord_index.load_record_index`; also if sources give one class
            different names, or weights aren't positive or given for some sources only.
    """
    parts = _configs(config)
    weights = _weights(config)
    indexes, categories = [], config.categories
    for part in parts:
        index = _load(dataclasses.replace(part, categories=categories))
        indexes.append(index)
        if len(parts) > 1 and part.annotations:
            _check_names(part.annotations, categories, source_name(parts[0]))
        categories = categories or index.categories
    counts = [index.image_ids.size for index in indexes]
    return Sources(list(map(source_name, parts)), concatenated(indexes), [0, *np.cumsum(counts).tolist()], weights)


def pools(sources, rows, batch):
    """What each pass of a training order draws.

    Without weights, every image of `rows` once. With weights, as many images as `rows` has, rounded down to whole
    batches and divided among the sources by largest remainder.

    Args:
        sources: Sources.
        rows: [N] int64, the numbers of the images to train on, rising.
        batch: images of a step.

    Returns:
        list of order.Pool.

    Raises:
        UserError: a source has a weight and no image to train on, or one so small that it gets no image.
    """
    if sources.weights is None:
        return [Pool(rows, rows.size)]
    total = max(rows.size // batch, 1) * batch
    bounds = np.searchsorted(rows, sources.starts)
    draws = _apportion(total, np.array(sources.weights))
    for place, name in enumerate(sources.names):
        if bounds[place] == bounds[place + 1]:
            raise UserError(
                f"No image of {name} can be trained on, but it has a weight: remove it from data.*.sources."
            )
        if not draws[place]:
            raise UserError(
                f"The weight of {name} is {sources.weights[place]:.2g} of all, which gives it none of a pass's {total} "
                "images: raise it in data.*.sources."
            )
    return [Pool(rows[first:end], int(count)) for first, end, count in zip(bounds, bounds[1:], draws, strict=False)]


def concatenated(indexes):
    """One CocoIndex of several with the same categories: images in the order given, their instances' classes as is."""
    joined = {}
    for field in dataclasses.fields(CocoIndex):
        values = [getattr(index, field.name) for index in indexes]
        if field.name == "categories":
            joined[field.name] = values[0]
        elif field.name == "problems":
            joined[field.name] = sum(values, [])
        elif field.name.endswith("_offsets") and field.name != "record_offsets":
            joined[field.name] = _chained(values)
        else:
            joined[field.name] = np.concatenate(values)
    return CocoIndex(**joined)


def _chained(offsets):
    """Offsets into arrays that are joined, each list going on where the one before ended."""
    shifts = np.cumsum([0] + [one[-1] for one in offsets])
    return np.concatenate([offsets[0][:1]] + [one[1:] + shift for one, shift in zip(offsets, shifts, strict=False)])


def _configs(config):
    """A DataConfig for each source."""
    if not config.sources:
        return [config]
    if config.panoptic or config.semantic_maps:
        raise UserError(
            f"The data has sources and also {config.panoptic or config.semantic_maps}: sources can't have maps of "
            "their pixels, so leave either out."
        )
    if source_name(config):
        raise UserError(
            f"The data has sources and also {source_name(config)}: make that one of data.*.sources, or remove the "
            "sources."
        )
    return [
        dataclasses.replace(config, sources=[], annotations=one.annotations, images=one.images, records=one.records)
        for one in config.sources
    ]


def _load(config):
    if not config.records:
        return load_index(config)
    other = source_name(dataclasses.replace(config, records=""))
    if other:
        raise UserError(f"The data has both {other} and {config.records}: name one of them as its source.")
    return load_record_index(config.records, config)


def _weights(config):
    """Each source's share; None if none has a weight."""
    weights = [source.weight for source in config.sources]
    if all(weight is None for weight in weights):
        return None
    for source in config.sources:
        name = source.records or source.annotations
        if source.weight is None:
            raise UserError(f"{name} has no weight, and other sources have: set it in data.*.sources, or none of them.")
        if not 0 < source.weight < np.inf:
            raise UserError(f"The weight of {name} is {source.weight}: it must be more than 0, or remove the source.")
    return [weight / sum(weights) for weight in weights]


def _check_names(annotations, categories, first):
    """One id with two names is another class, which would go unnoticed where training knows classes by their ids."""
    known = {category.id: category.name for category in categories}
    for category in read_categories(annotations):
        name = known.get(category.id, category.name)
        if name != category.name:
            raise UserError(
                f"Category {category.id} is {category.name!r} in {annotations} and {name!r} in {first} or the config: "
                "give a class the same id and name in all data.*.sources."
            )


def _apportion(total, weights):
    """`total` divided in proportion to `weights` [N], which add up to 1: whole numbers by largest remainder."""
    quotas = total * weights
    whole = np.floor(quotas).astype(np.int64)
    largest = np.argsort(whole - quotas, kind="stable")
    whole[largest[: total - whole.sum()]] += 1
    return whole
