"""torchvision's way from JPEG files and a COCO json to images for training, in loader processes."""

import random
import tempfile

import torch
from pycocotools import mask as coco_mask
from torchvision.datasets import CocoDetection
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from mrcnn_tf.benchmark import worker
from mrcnn_tf.benchmark.pipeline import make_dataset

PROCESSES = 2
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class TrainingImages(CocoDetection):
    """What its detection reference makes of an image: boxes, full-size masks, mirroring, and the resize to 800 pixels.

    There the model does the resize; in the loader's processes it can run in parallel, which is to torchvision's favour.
    """

    def __init__(self, folder, annotations, repetitions):
        super().__init__(folder, annotations)
        self.ids = self.ids * repetitions
        self.resize = GeneralizedRCNNTransform(800, 1333, MEAN, DEVIATION)

    def __getitem__(self, index):
        image, objects = super().__getitem__(index)
        width, height = image.size
        boxes = torch.tensor([each["bbox"] for each in objects]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(0, width)
        boxes[:, 1::2].clamp_(0, height)
        masks = torch.stack([_mask(each["segmentation"], height, width) for each in objects])
        if random.random() < 0.5:
            image = v2.functional.horizontal_flip(image)
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
            masks = masks.flip(-1)
        pixels = v2.functional.to_dtype(v2.functional.pil_to_tensor(image), torch.float32, scale=True)
        labels = torch.tensor([each["category_id"] for each in objects])
        images, targets = self.resize([pixels], [{"boxes": boxes, "labels": labels, "masks": masks}])
        return images.tensors[0], targets[0]


def prepare(images, batch):
    """Times `images` images of the benchmark's data set; the time is seconds for each."""
    folder = tempfile.TemporaryDirectory()
    data = TrainingImages(folder.name, make_dataset(folder.name), 10**4)
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=PROCESSES, collate_fn=list)
    batches = iter(loader)

    def run():
        elapsed = worker.seconds(lambda: [next(batches) for _ in range(images // batch)])
        return {"image": elapsed / (images // batch * batch)}

    task = worker.Task(run)
    task.folder = folder  # it goes when the process ends
    return task


def _mask(polygons, height, width):
    return torch.from_numpy(coco_mask.decode(coco_mask.frPyObjects(polygons, height, width))).any(dim=2).to(torch.uint8)
