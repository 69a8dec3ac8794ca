"""The images on which an export is compared with the model."""

import contextlib
import pathlib
import tempfile

from PIL import Image

from mrcnn_tf.datasets.images import read_image

PICTURES = pathlib.Path(__file__).parents[1] / "datasets" / "nuclei" / "images"
CROPS = ((128, 128), (128, 96), (80, 128))  # height and width of the images of a check: of several shapes


@contextlib.contextmanager
def check_files(check_images):
    """Gives the paths: `check_images`, or for None three of the demo's, cut to several shapes."""
    if check_images is not None:
        yield [pathlib.Path(path) for path in check_images]
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for source, (height, width) in zip(sorted(PICTURES.iterdir()), CROPS, strict=False):
            paths.append(pathlib.Path(folder) / f"{source.stem}.png")
            Image.fromarray(read_image(source)[:height, :width]).save(paths[-1])
        yield paths
