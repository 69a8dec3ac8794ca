"""What is kept of each image of an evaluation, on one host or merged from all of them."""

import json
import pathlib

from mrcnn_tf.common.files import replaced
from mrcnn_tf.datasets.image_maps import semantic_classes
from mrcnn_tf.evaluation.panoptic_quality import PanopticQuality
from mrcnn_tf.evaluation.semantic_iou import SemanticIoU
from mrcnn_tf.evaluation.truth import read_labels, segment_labels, thing_annotations
from mrcnn_tf.ops.replicas import from_all_workers

SEGMENT_MAPS = "panoptic"  # the folder of PNGs, beside panoptic.json


class Tally:
    """Compares the detections of each image with its ground truth, as far as that doesn't need all of them at once.

    Args:
        truth: the `Truth`.
        folder: where the PNGs of segments found go, in a folder of their own; None writes none.
    """

    def __init__(self, truth, folder=None):
        self.truth, self.folder = truth, folder and pathlib.Path(folder)
        self._images = {}  # {image id: what is kept of it}
        self._quality = self._iou = None
        if truth.segments:  # a model without instances isn't asked for things
            self._quality = PanopticQuality(truth.things if truth.instances else [], truth.stuff)
        if truth.pixels:
            self._classes, self._iou = semantic_classes(truth.things, truth.stuff), SemanticIoU(truth.stuff)

    def __len__(self):
        return len(self._images)

    def add(self, image_id, detections):
        """Takes the `Detections` of an image; of one that was there before, as in a last batch that is filled up, no
        notice is taken."""
        if image_id in self._images:
            return
        height, width = detections.image_size
        kept = {"detections": detections.to_coco(image_id), "things": [], "segments": None}
        kept["size"] = {"height": height, "width": width}
        panoptic = self.truth.panoptic
        found = None
        if self.truth.segments or self.folder:
            found = detections.panoptic
        if found is not None:
            kept["segments"] = found.to_coco(image_id, f"{image_id:012d}.png")
            self._write(found, kept["segments"]["file_name"])
        if panoptic and image_id in panoptic.places:
            kept["things"] = self._compare(image_id, detections, kept["segments"])
        elif self.truth.label_files and image_id in self.truth.label_files and detections.semantic is not None:
            labels = read_labels(self.truth.label_files[image_id], self._classes)
            self._iou.add(image_id, labels, detections.semantic)
        self._images[image_id] = kept

    def _compare(self, image_id, detections, record):
        """Counts an image with segments; returns its things as annotations, if they are the instances."""
        truth = self.truth.panoptic
        segment_map, segments = truth.segment_map(image_id), truth.segments(image_id)
        if self._quality and record:
            found_map = detections.panoptic.segment_map
            self._quality.add(image_id, segment_map, segments, found_map, record["segments_info"])
        if self._iou and detections.semantic is not None:
            self._iou.add(image_id, segment_labels(segment_map, segments, self._classes), detections.semantic)
        if not self.truth.things_are_segments:
            return []
        evaluated = {category.id for category in self.truth.things}
        things = [segment for segment in segments if segment["category_id"] in evaluated]
        return thing_annotations(segment_map, things, image_id)

    def _write(self, panoptic, name):
        if self.folder:
            with replaced(self.folder / SEGMENT_MAPS / name) as file:
                file.write_bytes(panoptic.png())

    def merge(self, strategy):
        """Takes what the other processes of a strategy have; all of them end up with everything."""
        for part in from_all_workers(strategy, json.dumps(list(self._images.items())).encode()):
            self._images = dict(json.loads(part)) | self._images
        for counts in filter(None, (self._quality, self._iou)):
            for part in from_all_workers(strategy, counts.to_bytes()):
                counts.merge(part)

    def image_ids(self):
        """Of all images seen, rising."""
        return sorted(self._images)

    def detections(self):
        """All of them in COCO's result format."""
        return [result for image in self._images.values() for result in image["detections"]]

    def things(self):
        """The annotations of all images that come from segments, with ids from 1, as a `GroundTruth` has them."""
        records = (record for image_id in self.image_ids() for record in self._images[image_id]["things"])
        return [{"id": number} | record for number, record in enumerate(records, 1)]

    def segments(self):
        """The annotations of a panoptic json, of what was found."""
        return [image["segments"] for image in self._images.values() if image["segments"]]

    def panoptic_json(self):
        """COCO's panoptic json of what was found."""
        kinds = (self.truth.things, 1), (self.truth.stuff, 0)
        categories = [{"id": c.id, "name": c.name, "isthing": isthing} for kind, isthing in kinds for c in kind]
        images = [{"id": image_id} | self._images[image_id]["size"] for image_id in self.image_ids()]
        return {"images": images, "annotations": self.segments(), "categories": categories}

    def unread(self):
        """A sentence for each image that wasn't seen."""
        ids = [image_id for image_id in self.truth.image_ids if image_id not in self._images]
        return [f"{self.truth.source}: image {one} is left out: it could not be read." for one in ids]

    def panoptic_results(self):
        """`PanopticResults`, or None without segments."""
        if not self._quality or not self.segments():
            return None
        truth = self.truth.panoptic
        unknown = [image_id for image_id in self.image_ids() if image_id not in truth.sizes]
        sentences = [f"{truth.source}: image {one} is left out: it isn't in there." for one in unknown]
        return self._quality.results(truth.left_out + sentences)

    def semantic_results(self):
        """`SemanticResults`, or None without classes of pixels."""
        if not self._iou:
            return None
        files = self.truth.label_files
        without = [] if files is None else [one for one in self.image_ids() if one not in files]
        results = self._iou.results([f"Image {one} is left out: it has no label map." for one in without])
        return results if results.images else None
