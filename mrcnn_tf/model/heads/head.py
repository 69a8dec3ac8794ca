"""What a head is: the one place that says what a model asks of it."""

from mrcnn_tf.model.blocks import ConfiguredLayer
from mrcnn_tf.model.roi_features import make_pooling


class Head(ConfiguredLayer):
    """A part of the model that makes outputs and, in training, losses; subclasses are Keras layers as any other.

    A model goes through its heads in turn. In inference the first gets the RPN's proposals as `Regions`, each later one
    what those before made of them by `refine`; in training all get the same `RoISample`. All that the rest of the
    package does with a head, it does by what stands here.

    Attributes:
        section: of a config's `model`, from which `from_settings` makes the head; "" of a head of a user's own.
        settings: the dataclass of that section.
        loss_names: of what `compute_losses` gives.
        outputs: an `OutputSpec` of each thing that `detect` gives.
        pooling: the layer that gives RoI features, such as a `RoILayer`, which heads may share; None: it reads maps.
        float_layers: names of its layers that stay float32 in a TFLite export of bytes: those that give fine numbers,
            such as scores, not features.
        learns_from_positives: only the positive RoIs of a `RoISample` are pooled in training; for the estimate of
            memory.
    """

    section = ""
    settings = None
    loss_names = ()
    outputs = ()
    pooling = None
    float_layers = ()
    learns_from_positives = False

    def __init__(self, **kwargs):
        # Boxes and scores must stay float32; layers inside choose for themselves.
        super().__init__(**{"autocast": False} | kwargs)

    @classmethod
    def from_settings(cls, model, spec, heads, **arguments):
        """The head that a config asks for.

        Args:
            model: the `ModelConfig`.
            spec: the `FeatureSpec` of the maps.
            heads: those before it.
            **arguments: the config's own for a head named there, where `pool_size` makes a pooling layer; `name`,
                `dtype`.
        """
        if "pool_size" in arguments:
            arguments["pooling"] = make_pooling(model, arguments.pop("pool_size"), spec, heads, arguments)
        return cls(**arguments)

    def check(self, model):
        """Raises UserError where the head doesn't fit the `MaskRCNN`, whose weights are made."""

    def build(self, input_shape):
        """Makes the weights.

        Args:
            input_shape: [.., R, S, S, C] of the pooling layer's features or, without one, of the maps by name.
        """

    def refine(self, features, regions):
        """The regions that later heads work on, and `detect`: those given, unless the head moves or chooses boxes."""
        return regions

    def detect(self, features, regions):
        """The outputs by name, of `FeatureMaps` and the refined `Regions`, coordinates in pixels of the input."""
        return {}

    def compute_losses(self, features, rois, truth):
        """The losses by name, float32 scalars, of `FeatureMaps`, a `RoISample` (None without RPN) and a `GroundTruth`.

        Under a strategy each is this replica's share, see `model.losses`.
        """
        return {}

    def training_examples(self, features, rois, truth):
        """What pictures of a diagnosis show of targets and predictions: [B, P, ...] by name, of the P positive RoIs.

        Arguments as of `compute_losses`; none where the ground truth doesn't have what the head learns from.
        """
        return {}

    def class_variables(self):
        """A `ClassVariable` of each weight whose shape depends on the classes."""
        return []

    def results(self, outputs, model):
        """What `Detections` takes of the head: arguments by name, of one image's outputs, numpy arrays of D detections.

        An argument that `Detections` doesn't have becomes an attribute of that name; what is of the image as a whole is
        left out, unless a head has a place for it.
        """
        return {spec.name: outputs[spec.name] for spec in self.outputs if spec.per_detection}

    def sections(self):
        """The sections of a config's `model` that the head was made of, by name."""
        return {self.section: self.settings} if self.section else {}

    def activations(self, pixels, rois, positives):
        """Numbers that an image's training step keeps for the head's gradient, beside RoI features; for the estimate of
        memory.

        Args:
            pixels: of the padded image.
            rois, positives: RoIs drawn, and those of them that may be positive.
        """
        return 0
