"""Image in, picture with boxes, names and masks out. Needs numpy, pillow and ai-edge-litert, and nothing else.

    python edge_example.py model.tflite street.jpg found.png

MODEL.tflite is what `mrcnn-tf export tflite` writes. Copy this file, or its functions, into your own program.
"""

import argparse
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw, ImageFont, ImageOps

COLOURS = ((0, 158, 215), (230, 159, 0), (0, 178, 125), (240, 228, 66), (204, 121, 167), (213, 94, 0))
OPACITY = 0.45  # of a mask
SIDE = 640  # pixels; a smaller picture is enlarged, or its labels would cover it


def load(path, threads):
    """The model as a function of named arrays, the (height, width) of its input, and the names of classes 1, 2, ..."""
    interpreter = Interpreter(path, num_threads=threads)
    run = interpreter.get_signature_runner("serving_default")
    height, width = (int(side) for side in run.get_input_details()["image"]["shape"][1:3])
    with zipfile.ZipFile(path) as archive:  # the labels are a zip archive at the end of the file
        names = archive.read("labels.txt").decode().splitlines()
    return run, (height, width), names


def detect(run, input_size, picture, min_score):
    """What the model finds in an RGB picture, best first.

    Returns:
        Boxes [D, 4] = x1 y1 x2 y2 in the picture's pixels, scores [D], classes [D] in 1..K, and masks [D, M, M]: the
        probabilities in the box's frame, or None if the model has no masks.
    """
    # The picture goes to the top left of the input, as large as it fits; `image_size` says how far it reaches.
    scale = min(input_size[0] / picture.height, input_size[1] / picture.width)
    width, height = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    image = np.zeros((1, *input_size, 3), np.uint8)
    image[0, :height, :width] = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    outputs = run(image=image, image_size=np.array([[height, width]], np.int32))

    found = outputs["scores"][0] >= min_score
    found[outputs["num_detections"][0] :] = False  # the rest of the rows is padding
    boxes, scores, classes = (outputs[name][0][found] for name in ("boxes", "scores", "classes"))
    back = np.array([picture.width / width, picture.height / height], np.float32)
    masks = outputs["masks"][0][found] if "masks" in outputs else None
    return boxes * np.tile(back, 2), scores, classes, masks


def draw(picture, boxes, labels, masks):
    """The picture with a translucent mask, a box and a label for each detection."""
    canvas = np.array(picture, np.float32)
    edges = np.round(boxes).astype(int)
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
    for index in reversed(range(len(edges))):  # the best lies on top
        if masks is not None:
            blend(canvas, edges[index], masks[index], COLOURS[index % len(COLOURS)])
    drawn = Image.fromarray(canvas.round().astype(np.uint8))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(max(12, max(picture.size) // 50))
    for index in reversed(range(len(edges))):
        x1, y1, x2, y2 = edges[index].tolist()
        colour = COLOURS[index % len(COLOURS)]
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=colour, width=max(1, max(picture.size) // 400))
        left, top, right, bottom = pen.textbbox((0, 0), labels[index], font=font, anchor="lb")
        x, y = max(0, min(x1, drawn.width - right)), max(y1, -top)  # all of it inside the picture
        pen.rectangle((x + left, y + top, x + right, y + bottom), fill=colour)
        pen.text((x, y), labels[index], fill="black", font=font, anchor="lb")
    return drawn


def blend(canvas, edges, mask, colour):
    """Lays a colour over the pixels of `canvas` [H, W, 3] float that belong to a mask [M, M] stretched over a box."""
    x1, y1, x2, y2 = edges.tolist()
    # A border of zeros lets the mask fade out at the box instead of stopping there.
    side = mask.shape[0]
    padded = Image.fromarray(np.pad(mask, 1).astype(np.float32))
    stretched = padded.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box=(1, 1, side + 1, side + 1))
    top, left = max(y1, 0), max(x1, 0)
    pixels = np.asarray(stretched)[top - y1 :, left - x1 :] >= 0.5
    patch = canvas[top:y2, left:x2]
    pixels = pixels[: patch.shape[0], : patch.shape[1]]
    patch[pixels] += OPACITY * (np.array(colour, np.float32) - patch[pixels])


def main():
    parser = argparse.ArgumentParser(description="Detect with a .tflite file of mrcnn-tf and draw what it finds.")
    parser.add_argument("model", help="made by mrcnn-tf export tflite")
    parser.add_argument("image")
    parser.add_argument("picture", help="the file to write, such as found.png")
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    run, input_size, names = load(options.model, options.threads)
    picture = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
    boxes, scores, classes, masks = detect(run, input_size, picture, options.min_score)
    labels = [f"{names[number - 1]} {score:.2f}" for number, score in zip(classes, scores, strict=True)]
    zoom = max(1, SIDE // max(picture.size))
    enlarged = picture.resize((picture.width * zoom, picture.height * zoom))
    draw(enlarged, boxes * zoom, labels, masks).save(options.picture)
    for label, box in zip(labels, boxes.round(1).tolist(), strict=True):
        print(label, box)


if __name__ == "__main__":
    main()
