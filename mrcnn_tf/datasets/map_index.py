"""What a dataset's maps add to its `CocoIndex`: a file and a table for each image, and a panoptic json's instances."""

import dataclasses
import os

import numpy as np

from mrcnn_tf.common.archives import refuse_archive
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import image_maps
from mrcnn_tf.datasets.panoptic_segments import MapSegments, SegmentObjects


@dataclasses.dataclass
class MapIndex:
    """The part of an index that comes from maps.

    Attributes:
        kept: [I] bool, the images whose map can be used.
        columns: the map columns of a CocoIndex for these, as a dict.
        things: SegmentObjects, the segments that are instances; None of label maps.
        sizes: {path: bytes} of the maps.
        problems: list of Problem.
    """

    kept: np.ndarray
    columns: dict[str, np.ndarray]
    things: SegmentObjects | None
    sizes: dict[str, int]
    problems: list[Problem]


def needed_maps(config):
    """A DataConfig without the maps that nobody has a use for."""
    if config.semantic is not False:
        return config
    if config.annotations:
        config = dataclasses.replace(config, panoptic="", panoptic_maps="")
    return dataclasses.replace(config, semantic_maps="")


def check_map_paths(config):
    """Raises UserError unless the maps of a DataConfig are of one kind and there."""
    refuse_archive(config.panoptic, "the json in it as data.*.panoptic")
    refuse_archive(config.panoptic_maps, "the folder of PNGs in it as data.*.panoptic_maps")
    refuse_archive(config.semantic_maps, "the folder of PNGs in it as data.*.semantic_maps")
    if config.panoptic and config.semantic_maps:
        raise UserError(
            f"The data has both {config.panoptic} and {config.semantic_maps}: name one of them as the source of the "
            "classes of pixels."
        )
    if config.panoptic and not os.path.isfile(config.panoptic):
        raise UserError(f"There is no file {config.panoptic!r}: set data.*.panoptic to a COCO panoptic json.")
    if config.panoptic and not os.path.isdir(config.panoptic_maps):
        where = f"set data.*.panoptic_maps to the PNGs of {config.panoptic}"
        raise UserError(f"There is no folder {config.panoptic_maps!r}: {where}.")
    if config.semantic_maps and not os.path.isdir(config.semantic_maps):
        raise UserError(f"There is no folder {config.semantic_maps!r}: set data.*.semantic_maps to one of label PNGs.")
    if config.semantic_maps and not config.stuff:
        raise UserError(
            f"Nothing names the classes of the label maps in {config.semantic_maps}: list them in model.stuff, each "
            "with the value of its pixels as id, and a name."
        )


def index_maps(config, panoptic, fields, categories, source, bar):
    """Finds and checks the maps of a dataset's usable images.

    Args:
        config: settings.DataConfig; `images`, `panoptic_maps`, `semantic_maps` and `stuff` are read.
        panoptic: panoptic_json.PanopticJson; None for label maps.
        fields: the image arrays of a CocoIndex, as a dict.
        categories: list of Category, the things.
        source: the json or folder that lists the images.
        bar: function of a name and a number of files that gives a function to call with how many are done.

    Returns:
        MapIndex.

    Raises:
        UserError: see `semantic_classes` and `check_labels`; also if a map can't be read, or there is no stuff and
            `config.semantic` is True.
    """
    if panoptic is None:
        classes = image_maps.semantic_classes(categories, config.stuff)
        paths = image_maps.label_map_paths(config.semantic_maps, config.images, fields["image_files"])
        maps = image_maps.usable_maps(paths, fields, source, False, bar("maps", len(paths)))
        if image_maps.are_few(maps):
            image_maps.check_labels(maps, classes)
        return MapIndex(maps.kept, image_maps.label_columns(maps.files), None, maps.sizes, maps.problems)
    if config.semantic and not (config.stuff or panoptic.stuff):
        raise UserError(
            f"{config.panoptic} has no category with isthing 0, and a semantic head needs some stuff: add such "
            "categories, or train without it (model.semantic_head=null)."
        )
    classes = image_maps.semantic_classes(categories, config.stuff or panoptic.stuff)
    paths, annotations = image_maps.segment_map_paths(panoptic, config.panoptic_maps, fields["image_ids"])
    maps = image_maps.usable_maps(paths, fields, source, True, bar("maps", len(paths)))
    segments = MapSegments(panoptic, maps, annotations[maps.kept], bar)
    problems = panoptic.problems + image_maps.strangers(panoptic) + maps.problems
    problems = problems + segments.problems + segments.ignored_stuff(classes)
    return MapIndex(maps.kept, segments.columns(classes), segments.things(classes), maps.sizes, problems)
