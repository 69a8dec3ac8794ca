"""COCO json or label maps + image folder -> `CocoIndex`, compiled once and cached.

A large json is streamed, its image files are opened for their headers, and every bad record ends up in a report.
"""

import dataclasses
import os

import numpy as np

from mrcnn_tf.common.categories import parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.json_values import parse_integer
from mrcnn_tf.common.problems import Problem, counting_bar, print_line, progress_bars, reading_bar
from mrcnn_tf.datasets import coco_index, map_files
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.annotation_columns import AnnotationColumns, without_keypoints
from mrcnn_tf.datasets.coco_records import parse_image, stream_records
from mrcnn_tf.datasets.image_files import image_frame, inspect_files, list_images
from mrcnn_tf.datasets.image_folder import locate_images
from mrcnn_tf.datasets.panoptic_json import MapSegments, read_panoptic


def load_index(config):
    """The usable records of a dataset, a CocoIndex.

    The first call reads the json and the images' headers and keeps the result in the user's cache folder
    ($MRCNN_TF_CACHE, or mrcnn_tf in $XDG_CACHE_HOME or ~/.cache); later calls only compare the sizes of files with what
    was seen then. Bad records are left out and listed: one line per kind on stderr, all in a json report beside the
    cached file. Images without objects are kept. What `config.masks`, `config.keypoints` or `config.semantic` has no
    use for is neither asked for nor checked.

    Instances are those of `annotations`, or else the segments of things in `panoptic`. The classes of pixels come from
    `panoptic` or `semantic_maps`, and with either of them an image needs its map. Without a json the images are all
    that the folder holds, numbered from 1 in the order of their names.

    Args:
        config: settings.DataConfig; `annotations`, `images`, `panoptic`, `panoptic_maps`, `semantic_maps`,
            `categories`, `stuff`, `max_instances`, `fields`, `masks`, `keypoints` and `semantic` are read; None for
            one of the last three means True.

    Raises:
        UserError: a json or folder is missing, a json isn't COCO's, its keypoints aren't those of `config.categories`,
            no image is usable, there are annotations and none has a number of one of `fields`, or see `_index_maps`.
    """
    config = _drop_unused_maps(config)
    _check_paths(config)
    image_names = [] if config.annotations or config.panoptic else list_images(config.images)
    path = coco_index.cache_path(config, image_names)
    index = coco_index.load_or_compile_index(path, lambda: _compile(config, image_names))
    coco_index.report_index_problems(index, path, source_name(config), config.max_instances)
    for name, missing in zip(config.fields, np.isnan(index.field_values).sum(axis=0).tolist(), strict=True):
        if missing:
            count = f"{missing} of {index.classes.size}"
            print_line(f"{config.annotations}: {count} annotations have no number {name!r}; in batches it is NaN.")
    return index


def source_name(config):
    """What to call a DataConfig's data, unless it has several sources: the json, the records or the folder of maps."""
    return config.records or config.annotations or config.panoptic or config.semantic_maps


def _check_paths(config):
    refuse_archive(config.annotations, "the json in it as data.*.annotations")
    refuse_archive(config.images, "the folder of images in it as data.*.images")
    _check_map_paths(config)
    maps_alone = not config.annotations and (config.panoptic or config.semantic_maps)
    if maps_alone and config.fields:
        raise UserError(
            f"data.*.fields asks for {', '.join(config.fields)}, and {source_name(config)} has no annotations with "
            "numbers of their own: name a COCO json as data.*.annotations, or leave the setting empty."
        )
    if not maps_alone and not os.path.isfile(config.annotations):
        raise UserError(f"There is no file {config.annotations!r}: set data.*.annotations to a COCO json.")
    if not os.path.isdir(config.images):
        where = f"set data.*.images to the images of {source_name(config)}"
        raise UserError(f"There is no folder {config.images!r}: {where}.")


def _compile(config, image_names):
    """(CocoIndex, {file: bytes}) from the jsons and folders; `image_names` are those of a folder without a json."""
    source = source_name(config)
    with progress_bars() as bars:
        images, objects, categories, panoptic = _read(config, image_names, bars)
        locations = locate_images(images, config.images)
        files = list(dict.fromkeys(location.path for location in locations.values()))
        on_progress = counting_bar(bars, "Checking images", len(files))
        headers = dict(zip(files, inspect_files(files, on_progress), strict=True))
        fields, skipped, problems = _check_images(images, locations, headers, source)
        sizes = {path: header.size for path, header in headers.items()}
        columns = map_files.map_columns([""] * len(fields["image_ids"]))
        if config.panoptic or config.semantic_maps:
            maps, columns, things, map_problems = _index_maps(config, panoptic, fields, categories, source, bars)
            skipped |= set(fields["image_ids"][~maps.kept].tolist())
            fields = {name: values[maps.kept] for name, values in fields.items()}
            problems, sizes, objects = problems + map_problems, sizes | maps.sizes, objects or things
        sides = (fields[name] for name in ("image_ids", "heights", "widths"))
        checker = Checker(objects, *sides, skipped, categories)
        instances = checker.instances(len(fields["image_ids"]))
    if not isinstance(objects, AnnotationColumns):
        instances["annotation_ids"] = objects.segment_ids[instances["annotation_ids"]]
    problems = problems + objects.problems + checker.problems
    return coco_index.CocoIndex(**fields, **instances, **columns, categories=list(categories), problems=problems), sizes


def _read(config, image_names, bars):
    """(ImageRecords, AnnotationColumns, categories, PanopticJson); no columns where the last has the instances."""
    panoptic = None
    if config.panoptic:
        panoptic = read_panoptic(config.panoptic, reading_bar(bars, f"Reading {config.panoptic}", config.panoptic))
    if config.annotations:
        masks = config.masks is not False
        annotations = AnnotationColumns(config.annotations, masks, config.fields)
        images, records = [], []
        collect = {"images": images.append, "annotations": annotations.add, "categories": records.append}
        on_progress = reading_bar(bars, f"Reading {config.annotations}", config.annotations)
        for section, record in stream_records(config.annotations, on_progress, masks):
            collect[section](record)
        annotations.finish()
        annotations.check_fields()
        return images, annotations, _choose_categories(records, config), panoptic
    categories = without_keypoints(config.categories)
    if panoptic:
        return panoptic.images, None, categories or panoptic.things, panoptic
    images = [parse_image({"id": number, "file_name": name}) for number, name in enumerate(image_names, 1)]
    return images, AnnotationColumns(config.semantic_maps, False), categories, None


def _choose_categories(records, config):
    """The config's categories, else those of the json's records; without keypoints if the config does without."""
    chosen = config.categories or parse_categories(records, config.annotations)
    if config.keypoints is False:
        return without_keypoints(chosen)
    records = [record for record in records if isinstance(record, dict)]
    for category in chosen:
        # Without names in the json the annotations may still follow the config's; without names here nobody asks.
        own = (record.get("keypoints") for record in records if parse_integer(record.get("id")) == category.id)
        names = next(own, None)
        if names and category.keypoints and names != category.keypoints:
            raise UserError(
                f"Category {category.name!r} has the keypoints {names} in {config.annotations} and "
                f"{category.keypoints} in the config: give both the same names in the same order."
            )
    return chosen


def _check_images(images, locations, headers, source):
    """(the image arrays of a CocoIndex as a dict, ids of images that can't be used, problems)."""
    rows, problems, seen, skipped = [], [], set(), set()
    for index, record in enumerate(images):
        frame, own_problems = check_image_record(record, locations.get(index), headers, source, seen)
        problems += own_problems
        if frame:
            path = locations[index].path
            rows.append((record.id, record.name, path, *frame, headers[path].by_pillow, -1))  # not in a TFRecord
        elif record.id is not None and record.id not in seen:
            skipped.add(record.id)
        seen.add(record.id)
    return coco_index.image_columns(rows), skipped, problems


def check_image_record(record, location, headers, source, seen):
    """How an image is used, and what is wrong with it.

    Args:
        record: coco_records.ImageRecord.
        location: its image_folder.ImageLocation; None for a record that names no file.
        headers: {path: ImageFile}.
        source: the json.
        seen: the ids of the records before.

    Returns:
        ((height, width, EXIF orientation to apply) or None where it can't be used, list of Problem).
    """

    def problem(kind, what, remedy, path=None, outcome="and was skipped"):
        where = f"{source} ({path})" if path else source
        sentence = f"Image {record.own_id} in {where} {what} {outcome}: {remedy}."
        return Problem(kind, record.own_id, path or source, sentence)

    if record.id is None or location is None:
        return None, [problem("image_fields", *_describe_missing_field(record))]
    if record.id in seen:
        return None, [problem("duplicate_image", "has an id that was used before", "give it one of its own")]
    path, notes = location.path, []
    if not location.is_named and len(location.rivals) == 1:
        what = f"names {record.names[0]!r}, which isn't there,"
        notes = [problem("misnamed_image", what, "correct its file_name", path, "and this file is used")]
    elif location.rivals:
        what = f"isn't there (it may be {' or '.join(map(repr, location.rivals[:3]))})"
        return None, [problem("missing_image", what, "correct its file_name", path)]
    header = headers[path]
    if header.problem:
        kind, what, remedy = header.problem
        return None, [*notes, problem(kind, what, remedy, path)]
    described = record.size or (header.height, header.width)
    frame = image_frame(header, *described)
    if frame:
        return frame, notes
    what = f"is {described[1]} x {described[0]} there and {header.width} x {header.height} in the file"
    return None, [*notes, problem("image_size", what, "correct width and height, or the file", path)]


def _describe_missing_field(record):
    """(what an ImageRecord lacks that can't be used, what to do about it)."""
    source = record.source
    if not isinstance(source, dict):
        return "isn't a json object", "remove it"
    name, wrong = ("id", "is no whole number or text") if record.id is None else ("file_name", "names no file")
    if source.get(name) is None:
        return f"lacks {'an' if name == 'id' else 'a'} {name}", "add it"
    return f"has {name} {source[name]!r}, which {wrong},", "correct it"


# What a dataset's maps add to its index: a file and a table for each image, and a panoptic json's instances.


def _drop_unused_maps(config):
    """A DataConfig without the maps that nobody has a use for."""
    if config.semantic is not False:
        return config
    if config.annotations:
        config = dataclasses.replace(config, panoptic="", panoptic_maps="")
    return dataclasses.replace(config, semantic_maps="")


def _check_map_paths(config):
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


def _index_maps(config, panoptic, fields, categories, source, bars):
    """Finds and checks the maps of a dataset's I usable images.

    Args:
        config, categories, bars: settings.DataConfig, list of Category (the things), rich Progress.
        panoptic: panoptic_json.PanopticJson; None for label maps.
        fields: the image arrays of a CocoIndex, as a dict.
        source: the json or folder that lists the images.

    Returns:
        maps: map_files.ImageMaps; those kept are the images whose map can be used.
        columns: the map columns of a CocoIndex for these, as a dict.
        things: SegmentObjects, the segments that are instances; None of label maps.
        problems: list of Problem.

    Raises:
        UserError: see `semantic_classes` and `check_label_values`; also if a map can't be read, or there is no stuff
            and `config.semantic` is True.
    """
    if panoptic is None:
        classes = map_files.semantic_classes(categories, config.stuff)
        paths = map_files.label_map_paths(config.semantic_maps, config.images, fields["image_files"])
        maps = map_files.check_maps(paths, fields, source, False, counting_bar(bars, "Checking maps", len(paths)))
        if maps.is_small:
            map_files.check_label_values(maps, classes)
        return maps, map_files.map_columns(maps.files), None, maps.problems
    if config.semantic and not (config.stuff or panoptic.stuff):
        raise UserError(
            f"{config.panoptic} has no category with isthing 0, and a semantic head needs some stuff: add such "
            "categories, or train without it (model.semantic_head=null)."
        )
    classes = map_files.semantic_classes(categories, config.stuff or panoptic.stuff)
    paths, annotations = map_files.segment_map_paths(panoptic, config.panoptic_maps, fields["image_ids"])
    maps = map_files.check_maps(paths, fields, source, True, counting_bar(bars, "Checking maps", len(paths)))
    segments = MapSegments(panoptic, maps, annotations[maps.kept], bars)
    problems = panoptic.problems + map_files.find_orphan_annotations(panoptic) + maps.problems
    problems = problems + segments.problems + segments.ignored_stuff(classes)
    return maps, segments.columns(classes), segments.things(classes), problems
