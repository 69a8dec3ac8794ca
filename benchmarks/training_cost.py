"""What a second replica, checkpoints, the input pipeline and COCO's figures cost beside the training steps.

The replicas share one processor's cores, so what a step on two takes longer is the price of the replicas: sums of
gradients, weights kept twice, operations on smaller batches.
"""

import json
import os
import pathlib
import tempfile

from benchmarks.inputs import coco_like_detections, make_jpeg_dataset
from benchmarks.processes import timed
from mrcnn_tf.cli import benchmark_measurements
from mrcnn_tf.cli.benchmark_measurements import benchmark_config, benchmark_model, compile_model, repeated_batch
from mrcnn_tf.cli.benchmark_processes import Task, seconds, serve

STEP_IMAGES = 2  # of a step that is divided among replicas
STEPS = 2  # beside a checkpoint: more than its writing takes


def replicas(config, overrides, height, width, replicas):
    """Time a step of SGD on STEP_IMAGES images of height x width pixels, divided among `replicas` logical devices."""
    import keras

    settings = benchmark_config(config, overrides, height, width)
    with logical_strategy(replicas).scope():
        keras.utils.set_random_seed(0)
        model = benchmark_model(settings, "float32")
    compile_model(model, settings)
    data = repeated_batch(settings, height, width, STEP_IMAGES)
    batches = iter(model.distribute_strategy.experimental_distribute_dataset(data))
    return Task(timed(step=lambda: model.train_function(batches)))


def logical_strategy(replicas):
    """A strategy of so many logical devices on the processor; nothing may have used TensorFlow's devices before."""
    import tensorflow as tf

    if replicas == 1:
        return tf.distribute.get_strategy()
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])


def checkpoints(config, overrides, height, width):
    """Time STEPS training steps of one image, by themselves and from the begin of a checkpoint's writing on.

    The difference is what a checkpoint costs, copying included; the fact `every` is the config's steps between two.
    """
    import keras

    from mrcnn_tf.training.checkpoints import Checkpoints
    from mrcnn_tf.training.snapshot import snapshot

    settings = benchmark_config(config, overrides, height, width)
    keras.utils.set_random_seed(0)
    model = benchmark_model(settings, "float32")
    compile_model(model, settings)
    batches = iter(repeated_batch(settings, height, width, 1))
    folder = tempfile.TemporaryDirectory()
    checkpoints = Checkpoints(pathlib.Path(folder.name), keep=1)
    facts = {"every": settings.train.checkpoint_steps, "steps": STEPS, "saved": 0}
    model.train_function(batches)

    def steps():
        for _ in range(STEPS):
            model.train_function(batches)

    def steps_saving():
        facts["saved"] += 1
        checkpoints.save(snapshot(model), {"step": facts["saved"]})
        steps()
        checkpoints.close()

    return Task(timed(steps=steps, steps_saving=steps_saving), facts, folder)


def pipeline(images=48, batch=2):
    """Time `images` images of coco_dataset(training=True): 640 x 480 JPEG files, seven polygons each, to 800 pixels.

    The time is seconds for each image.
    """
    folder = tempfile.TemporaryDirectory()
    os.environ["MRCNN_TF_CACHE"] = os.path.join(folder.name, "cache")
    annotations = make_jpeg_dataset(folder.name)
    overrides = [
        f"data.train.annotations={annotations}",
        f"data.train.images={folder.name}",
        f"data.train.images_per_batch={batch}",
    ]
    task = benchmark_measurements.pipeline("mask_rcnn_r50_fpn", overrides, images)
    task.folder = folder
    return task


def evaluation(backend, images=5000, detections=30):
    """Time reading a json of `images` images, and all box and mask figures of `detections` detections in each of them.

    The facts hold the numbers of images, objects and detections, and the figures as `CocoResults` has them.
    """
    from mrcnn_tf.evaluation.average_precision import check_backend, evaluate_detections
    from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth

    check_backend(backend)
    data, records = coco_like_detections(images, detections)
    folder = tempfile.TemporaryDirectory()
    path = pathlib.Path(folder.name) / "instances.json"
    path.write_text(json.dumps(data))
    facts = {"images": images, "objects": len(data["annotations"]), "detections": len(records)}

    def run():
        truth, results = [], []
        times = {"read": seconds(lambda: truth.append(read_instance_ground_truth(path)))}
        times["evaluate"] = seconds(lambda: results.append(evaluate_detections(records, truth[0], backend=backend)))
        facts["figures"] = {"bbox": results[0].bbox, "segm": results[0].segm}
        return times

    return Task(run, facts, folder)


if __name__ == "__main__":
    serve(replicas, checkpoints, pipeline, evaluation)
