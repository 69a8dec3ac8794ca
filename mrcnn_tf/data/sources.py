"""One `CocoIndex` of all that a `DataConfig` names: jsons, maps, TFRecords, or several sources, mixed by weight."""

import dataclasses

import numpy as np

from mrcnn_tf.common.categories import read_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.tfrecord_reader import load_record_index
from mrcnn_tf.datasets.coco_index import CocoIndex
from mrcnn_tf.datasets.read_coco import load_index, source_name


@dataclasses.dataclass
class Sources:
    """Datasets read as one."""

    names: list[str]  # their json files or patterns
    # Ids of images are those of the files and may come twice in different sources: batches carry them for messages and
    # as the seed of sampling, for which they needn't be unique.
    index: CocoIndex
    starts: list[int]  # the number of each source's first image, and that after the last
    # Each source's share of the images drawn, adding up to 1; None to draw every image once a pass.
    weights: list[float] | None

    @property
    def name(self):
        """All of them in one, for messages."""
        return ", ".join(self.names)


def load_sources(config):
    """Reads all datasets of a settings.DataConfig: its `sources`, or its `records`, or its jsons, maps and `images`.

    Where its `categories` are empty, those of the first source are taken.

    Raises:
        UserError: see `read_coco.load_index` and `tfrecord_reader.load_record_index`; also if sources give one class
            different names, weights aren't positive or given for some sources only, or `fields` are asked of records.
    """
    configs = _source_configs(config)
    weights = _normalised_weights(config)
    indexes, categories = [], config.categories
    for source in configs:
        index = _load(dataclasses.replace(source, categories=categories))
        indexes.append(index)
        if len(configs) > 1 and source.annotations:
            _check_names(source.annotations, categories, source_name(configs[0]))
        categories = categories or index.categories
    counts = [index.image_ids.size for index in indexes]
    return Sources(list(map(source_name, configs)), join_indexes(indexes), [0, *np.cumsum(counts).tolist()], weights)


def join_indexes(indexes):
    """One CocoIndex of several with the same categories: images in the order given, their instances' classes as is."""
    joined = {}
    for field in dataclasses.fields(CocoIndex):
        values = [getattr(index, field.name) for index in indexes]
        if field.name == "categories":
            joined[field.name] = values[0]
        elif field.name == "problems":
            joined[field.name] = sum(values, [])
        elif field.name.endswith("_offsets") and field.name != "record_offsets":
            joined[field.name] = _chain_offsets(values)
        else:
            joined[field.name] = np.concatenate(values)
    return CocoIndex(**joined)


def _chain_offsets(offsets):
    """Offsets into arrays that are joined, each list going on where the one before ended."""
    starts = np.cumsum([0] + [own[-1] for own in offsets])
    return np.concatenate([offsets[0][:1]] + [own[1:] + start for own, start in zip(offsets, starts, strict=False)])


def _source_configs(config):
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
        dataclasses.replace(
            config, sources=[], annotations=source.annotations, images=source.images, records=source.records
        )
        for source in config.sources
    ]


def _load(config):
    if not config.records:
        return load_index(config)
    other = source_name(dataclasses.replace(config, records=""))
    if other:
        raise UserError(f"The data has both {other} and {config.records}: name one of them as its source.")
    if config.fields:
        raise UserError(
            f"data.*.fields asks for {', '.join(config.fields)}, for which the records {config.records} have no place: "
            "train from the COCO json (data.train.annotations and images), or leave the setting empty."
        )
    return load_record_index(config.records, config)


def _normalised_weights(config):
    """Each source's share of all; None if none has a weight."""
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
