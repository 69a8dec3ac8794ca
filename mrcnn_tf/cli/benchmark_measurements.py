"""What `mrcnn-tf benchmark` measures, each in a process of its own: `python -m mrcnn_tf.cli.benchmark_measurements`.

A measurement is a function that prepares something and returns its `Task`. TensorFlow and Keras are imported inside,
for a .tflite file runs without them.
"""

import dataclasses
import io
import json
import time

import numpy as np
from PIL import Image

from mrcnn_tf.cli.benchmark_processes import Task, peak_memory, seconds, serve, start_program
from mrcnn_tf.common.errors import UserError

COCO_CLASSES = 80  # where the config leaves the classes open
OBJECTS = 7  # of the training image; COCO's images have 7.3 on average
STARTUP = """
import json, sys, time
imports = {"begin": time.time()}
import tensorflow
imports["tensorflow"] = time.time()
import mrcnn_tf
mrcnn_tf.MaskRCNN
imports["mrcnn_tf"] = time.time()
from mrcnn_tf.cli.benchmark_measurements import finish_startup
finish_startup(imports, **json.loads(sys.argv[1]))
"""  # as a user's process, before which nothing of this package is imported
TINY_RATE = 1e-9  # learning rate: random weights must not run away


def benchmark_config(config, overrides, height, width):
    """The `Config` of a name or path and overrides, for images of height x width pixels, with a score threshold of 0.

    Random weights then give as many proposals and detections as the settings allow, the slowest case.
    """
    from mrcnn_tf.common.categories import Category
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.weights.architecture import COCO_STUFF, PERSON

    settings = load_config(config, overrides)
    model = settings.model
    if not model.categories:
        things = [Category(number, str(number)) for number in range(1, COCO_CLASSES + 1)]
        model.categories = [PERSON] if model.keypoint_head else things
    if model.semantic_head and not model.stuff:
        model.stuff = COCO_STUFF
    model.detections = dataclasses.replace(model.detections, score_threshold=0.0)
    model.resize = dataclasses.replace(model.resize, min_size=min(height, width), max_size=max(height, width))
    return settings


def benchmark_model(config, precision, weights=None):
    """The `MaskRCNN` of a config in "float32" or "bfloat16", with random weights or those of a file.

    Raises UserError if bfloat16 would be emulated here, or the weights don't fit.
    """
    from mrcnn_tf.model.mask_rcnn import MaskRCNN
    from mrcnn_tf.model.precision import dtype_policy

    if precision == "bfloat16" and dtype_policy("auto").name != "mixed_bfloat16":
        raise UserError("This processor doesn't multiply bfloat16 natively.")
    model = MaskRCNN.from_settings(config.model, dtype=dtype_policy(precision))
    if weights:
        model.load_pretrained(weights, verbose=False)
    return model


def inference(config, overrides, height, width, precision, weights=None):
    """Time `MaskRCNN.detect` of an image of height x width pixels, and with it the pasting into full-size masks."""
    model = benchmark_model(benchmark_config(config, overrides, height, width), precision, weights)
    image, facts = random_image(height, width), {}

    def run():
        start = time.perf_counter()
        detections = model.detect(image)
        detected = time.perf_counter() - start
        facts["detections"] = len(detections)
        if detections.masks is None:
            return {"detect": detected}
        return {"detect": detected, "detect_full": time.perf_counter() - start}

    return Task(run, facts)


def training(config, overrides, height, width, precision, weights=None):
    """Time a step of SGD with momentum on one image of height x width pixels with seven objects and their masks."""
    import keras

    settings = benchmark_config(config, overrides, height, width)
    keras.utils.set_random_seed(0)
    model = benchmark_model(settings, precision, weights)
    compile_model(model, settings)
    batches, facts = iter(repeated_batch(settings, height, width, 1)), {}

    def step():
        metrics = model.train_function(batches)
        facts.update({name: float(value) for name, value in metrics.items() if name.startswith("loss")})

    return Task(lambda: {"step": seconds(step)}, facts)


def compile_model(model, config):
    """Make `model.train_function` with a learning rate at which weights stay as they are."""
    from mrcnn_tf.training.optimizer import SGD

    with model.distribute_strategy.scope():
        model.compile(optimizer=SGD(TINY_RATE, config.train.momentum, config.train.weight_decay))
        model.optimizer.build(model.trainable_weights)
    model.make_train_function()


def repeated_batch(config, height, width, images):
    """An endless tf.data.Dataset of one batch with the same image `images` times, by the data pipeline's contract."""
    import tensorflow as tf

    data = config.data.train
    pixels = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.float32)  # padded to a multiple of 32
    pixels[:height, :width] = random_image(height, width)
    boxes, classes = training_objects(height, width, len(config.model.categories))
    mask = 255 * ellipses(np.array([[0, 0, data.mask_size, data.mask_size]]), data.mask_size, data.mask_size)

    def padded(values):
        return np.pad(values, [(0, data.max_instances - len(values))] + [(0, 0)] * (values.ndim - 1))

    sample = {
        "image": pixels,
        "image_size": np.array([height, width], np.int32),
        "original_size": np.array([height, width], np.int32),
        "boxes": padded(boxes),
        "classes": padded(classes.astype(np.int32)),
        "masks": padded(np.repeat(mask, OBJECTS, axis=0)),
        "crowd": np.zeros(data.max_instances, bool),
    }
    if config.model.stuff:
        sample["semantic"] = class_bands(*pixels.shape[:2], len(config.model.stuff))
    batch = {name: np.repeat(values[None], images, axis=0) for name, values in sample.items()}
    batch["image_id"] = np.arange(images, dtype=np.int64)
    return tf.data.Dataset.from_tensors(batch).repeat()


def startup(config, overrides, height, width):
    """Time the stages from the start of a user's process to its first detection, each time in a new one.

    `mrcnn_tf` is what the first use of `mrcnn_tf.MaskRCNN` takes where TensorFlow and Keras are imported already.
    """
    return Task(lambda: start_program(STARTUP, config=config, overrides=overrides, height=height, width=width))


def finish_startup(imports, started, config, overrides, height, width):
    """Build a model, detect once and print the seconds of all stages.

    `imports` holds time.time() at `begin` and behind each import; `started` is that of the process's start.
    """
    stages = {name: imports[name] - before for name, before in zip(list(imports)[1:], imports.values(), strict=False)}
    settings, models = benchmark_config(config, overrides, height, width), []
    stages["build"] = seconds(lambda: models.append(benchmark_model(settings, "float32")))
    stages["first_detection"] = seconds(lambda: models[0].detect(random_image(height, width)))
    print(json.dumps(stages | {"start_to_detection": time.time() - started}))


def pipeline(config, overrides, images=48):
    """Time how long the processor prepares an image for training, of `images` images of the config's data.train.

    Raises UserError if the config names no data.
    """
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.data.pipeline import coco_dataset
    from mrcnn_tf.datasets.read_coco import source_name

    data = load_config(config, overrides).data.train
    if not (data.sources or source_name(data)):
        raise UserError(f"{config} names no data to train on: set data.train.annotations and data.train.images.")
    batches = iter(coco_dataset(data, training=True).repeat())
    count = max(1, images // data.images_per_batch)

    def run():
        elapsed = seconds(lambda: [next(batches) for _ in range(count)])
        return {"image": elapsed / (count * data.images_per_batch)}

    return Task(run)


def saved_model(folder, height, width, batches=(1, 8), read_answer=None):
    """Time `serving_default` of an exported folder on JPEG files of height x width pixels, by the sizes of `batches`.

    The times are `batch_1` and so on, of a whole batch. The facts hold the seconds of loading (`load`) and the peak of
    the process's memory before it (`memory_before`), bytes. `read_answer` is called with the arrays of the last batch.
    """
    import tensorflow as tf

    from mrcnn_tf.ops.native.library import load_custom_ops
    from mrcnn_tf.serving.export_labels import latest_version, read_labels

    version, loaded = latest_version(folder), []
    facts = {"memory_before": peak_memory(), "batches": list(batches)}
    if read_labels(version).document.get("custom_ops"):
        load_custom_ops()
    facts["load"] = seconds(lambda: loaded.append(tf.saved_model.load(str(version))))
    detect = loaded[0].signatures["serving_default"]
    jpeg = io.BytesIO()
    Image.fromarray(random_image(height, width)).save(jpeg, "JPEG", quality=90)

    def run():
        times = {}
        for number in batches:
            start = time.perf_counter()
            outputs = detect(image_bytes=tf.constant([jpeg.getvalue()] * number))
            outputs = {name: value.numpy() for name, value in outputs.items()}
            times[f"batch_{number}"] = time.perf_counter() - start
        if read_answer:
            read_answer(outputs)
        return times

    return Task(run, facts)


def tflite(path, threads, xnnpack):
    """Time runs of a .tflite file on one random image that fills its input: no image is decoded or resized.

    The facts hold the seconds from the file to an interpreter that is ready (`load`), which has copied weights into its
    kernels, and the peak of the process's memory before the file was opened (`memory_before`), bytes.
    """
    import ai_edge_litert.interpreter  # noqa: F401  its own memory isn't the model's

    from mrcnn_tf.serving.interpreter import load_signature

    facts, loaded = {"memory_before": peak_memory()}, []
    facts["load"] = seconds(lambda: loaded.append(load_signature(path, threads, xnnpack)))
    (detect,) = loaded
    height, width = detect.get_input_details()["image"]["shape"][1:3].tolist()
    arrays = {"image": random_image(height, width)[None], "image_size": np.array([[height, width]], np.int32)}
    return Task(lambda: {"run": seconds(lambda: detect(**arrays))}, facts)


def random_image(height, width):
    """A random image, uint8 [H, W, 3], the same in each call."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def random_boxes(count, height, width, smallest, largest):
    """Boxes [N, 4] inside an image of height x width pixels, the root of their area log-uniform in a range of them."""
    generator = np.random.default_rng(2)
    scale = np.exp(generator.uniform(np.log(smallest), np.log(largest), count))
    stretch = np.exp(generator.uniform(np.log(0.5), np.log(2.0), count) / 2)
    limit = np.array([width, height], np.float64)
    sides = np.minimum(np.stack([scale * stretch, scale / stretch], 1), limit)
    corners = generator.uniform(0, 1, (count, 2)) * (limit - sides)
    return np.concatenate([corners, corners + sides], 1).astype(np.float32)


def training_objects(height, width, classes):
    """The objects of an image: boxes [7, 4] from 40 pixels to half of the shorter side, classes [7] in 1..K."""
    side = min(height, width)
    return random_boxes(OBJECTS, height, width, min(40, side / 4), side / 2), 1 + np.arange(OBJECTS) % classes


def ellipses(boxes, height, width):
    """The ellipse that fills each box as a mask, uint8 [N, H, W] of 0 and 1."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    across, down = (columns - (x1 + x2) / 2) / ((x2 - x1) / 2), (rows - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return (across**2 + down**2 <= 1).astype(np.uint8)


def class_bands(height, width, stuff):
    """A class for each pixel, uint8 [H, W] in 0..S: bands of all of them."""
    return np.repeat((np.arange(height) * (stuff + 1) // height).astype(np.uint8)[:, None], width, axis=1)


if __name__ == "__main__":
    serve(inference, training, pipeline, startup, saved_model, tflite)
