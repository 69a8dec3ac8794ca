"""Where in a checkpoint the weights may be: every dictionary of tensors by name, and the plain values beside them.

A model's weights stand at the top level, under "model", "state_dict" or any other name, with a prefix such as "module."
before each of their names. Nothing here knows which names a model has: whoever does tries these in their order.
"""

import os
import re
from collections.abc import Mapping

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.stored_tensor import StoredTensor, WeightFileError
from mrcnn_tf.weights.torch_file import NumpyArray, NumpyScalar, TorchDtype, TorchParameter
from mrcnn_tf.weights.unpickler import Inert, LongText, printable

# Where training loops put the weights beside optimizer and step; "blobs" is Caffe2's.
_USUAL_PLACES = ("", "model", "state_dict", "model_state_dict", "blobs")
# Averages of the weights over the last steps, and what an optimizer keeps for each weight.
_AVERAGE = re.compile(r"(^|[._])(ema|swa|avg|averaged?|shadow)(?![a-z])", re.IGNORECASE)
_OPTIMIZER = re.compile(r"(^|[._])(optim|momentum|grad|exp_avg)", re.IGNORECASE)
# What torch.compile, FSDP and activation checkpointing put into the names of the modules that they wrap.
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
MAX_NAME = 256
MAX_PLACES = 10_000
MAX_DEPTH = 16  # of metadata
_MAX_PREFIXES = 8
# Half precision doubles in memory, and tensors may share a storage; more than this is a bomb.
_MAX_GROWTH = 8


class NamedTensors(Mapping):
    """The tensors of one place in a file: name -> array, made when it's asked for.

    Floating types come as float32, integers and booleans as they are. Most arrays are read-only views of the file.
    Asking for the first one checks them all, see `check`.

    Args:
        tensors: name -> `StoredTensor`, checked or not.
        misfits: name -> what stands there in place of a tensor, a clause such as "is a torch.nn.Linear".
        place: where in the file, such as "model"; "" for its top level.
        path, file_size: the file, and its size in bytes.
    """

    def __init__(self, tensors, misfits, place, path, file_size):
        self._tensors, self._misfits, self._checked = tensors, misfits, False
        self.place, self._path, self._file_size = place, path, file_size

    def __getitem__(self, name):
        tensor = self._tensors[name]
        self.check()
        return tensor.array()

    def __contains__(self, name):
        return name in self._tensors

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self):
        return len(self._tensors)

    def without_prefix(self, prefix):
        """The same tensors with `prefix` dropped from each name, which all of them have."""
        stripped, misfits = (
            {name.removeprefix(prefix): value for name, value in values.items()}
            for values in (self._tensors, self._misfits)
        )
        return NamedTensors(stripped, misfits, self.place, self._path, self._file_size)

    def check(self):
        """Raise UserError if a tensor is damaged, or something in the place of one is none."""
        if self._checked:
            return
        try:
            self._check()
        except WeightFileError as error:
            raise UserError(f"{self._path} can't be imported: {error}.") from error
        self._checked = True

    def _check(self):
        for name, fault in self._misfits.items():
            raise WeightFileError(
                f"its {printable(name)!r}, among the tensors of its {place_name(self.place)}, {fault}; save the "
                "weights alone, with torch.save(model.state_dict(), FILE) or as safetensors, and import that"
            )
        for name, tensor in self._tensors.items():
            # Names end up in tables on a terminal.
            if not name.isprintable():
                raise WeightFileError(f"its tensor {printable(name)!r} has control characters in its name")
            if len(name) > MAX_NAME:
                raise WeightFileError(f"its tensor {printable(name)!r} has a name of {len(name)} characters")
            try:
                tensor.check()
            except WeightFileError as error:
                raise WeightFileError(f"its tensor {name[:100]!r} {error}") from None
        growth = sum(tensor.copied_bytes for tensor in self._tensors.values())
        if growth > _MAX_GROWTH * self._file_size:
            raise WeightFileError(
                f"its tensors share their contents so widely that they would take {growth / 1e9:.1f} GB"
            )


def place_name(place):
    """The place for a sentence: "top level", or the names that lead there."""
    return repr(place) if place else "top level"


def examples_of(file):
    """The names of the first tensors in each of the places of a `WeightFile`, as far as a sentence can hold them."""
    places = [
        f"{', '.join(printable(name) for name in list(tensors)[:3])}, ... at its {place_name(place)}"
        for place, tensors in file.candidates.items()
    ]
    more = [f"and so on in {len(places) - 4} more places"] if len(places) > 4 else []
    module = _whole_module(file.metadata.items())
    return "; ".join([*places[:4], *more, *([f"and it holds {module}"] if module else [])])


def without_shared_prefix(names):
    """Yield "" and then each prefix of whole parts, such as "module.", that all `names` have, shortest first."""
    yield ""
    shared = os.path.commonprefix([min(names, default=""), max(names, default="")])
    ends = [match.end() for match in re.finditer(r"\.", shared[:MAX_NAME])]
    yield from (shared[:end] for end in ends[:_MAX_PREFIXES])


def find_candidates(contents, container, path, file_size):
    """Place -> `NamedTensors` of every dictionary with tensors in it, in the order in which they should be tried.

    Args:
        contents: a file's object as its reader gives it, with `StoredTensor`s and the like for tensors.
        container: as in `WeightFile`.
        path, file_size: of the file, for messages and bounds.
    """
    candidates = {}
    pending, seen = [("", contents)], set()
    for place, value in pending:  # which grows on the way
        entries = _entries(value)
        if entries is None or id(entries) in seen:
            continue
        seen.add(id(entries))
        tensors, misfits = _split(entries, container)
        if tensors:
            candidates[place] = NamedTensors(tensors, misfits, place, path, file_size)
        for name, inner in entries.items():
            if type(name) is str and len(name) <= MAX_NAME and name.isprintable() and _entries(inner) is not None:
                inner_place = f"{place}.{name}" if place else name
                if len(inner_place) <= MAX_NAME and len(pending) < MAX_PLACES:
                    pending.append((inner_place, inner))
    return dict(sorted(candidates.items(), key=lambda candidate: _rank(candidate[0])))


def _rank(place):
    if _OPTIMIZER.search(place):
        return 102
    if _AVERAGE.search(place):
        return 101
    return _USUAL_PLACES.index(place) if place in _USUAL_PLACES else 100


def _entries(value):
    """The dictionary that a value is, or adds to; None if it is none."""
    if type(value) is Inert:
        return value.entries
    return value if type(value) is dict else None


def _split(entries, container):
    """name -> `StoredTensor` and name -> what else stands where a tensor should, both without wrappers' names.

    Single numbers of numpy's, such as a best score, make no dictionary of tensors by themselves.
    """
    tensors, misfits, arrays = {}, {}, 0
    for key, value in entries.items():
        value = value.tensor if isinstance(value, TorchParameter) else value
        # Caffe2 keeps the optimizer's momentum beside each weight, torch's averages how many steps they are of.
        if type(key) is not str or (container == "pickle" and key.endswith("_momentum")) or key == "n_averaged":
            continue
        name = _WRAPPERS.sub("", key) if len(key) <= MAX_NAME else key
        scalar = isinstance(value, NumpyScalar)
        if isinstance(value, NumpyArray):
            value, fault = value.tensor, value.fault
        else:
            fault = f"is a {value.name}, which is no tensor and isn't looked up" if type(value) is Inert else None
        if isinstance(value, StoredTensor):
            if name in tensors:
                misfits[key] = f"is a second tensor by the name of {printable(name)!r}"
            tensors[name], arrays = value, arrays + (not scalar)
        elif fault:
            misfits[name] = fault
    return tensors if arrays else {}, misfits


def no_tensors(contents):
    """The clause of a `WeightFileError` on a file without candidates: what it holds in place of tensors."""
    if isinstance(contents, StoredTensor | NumpyArray | TorchParameter):
        return "it holds a single tensor without a name; save model.state_dict()"
    entries = _entries(contents)
    module = _whole_module([("", contents), *(entries or {}).items()])
    if module:
        return f"it holds {module}"
    if type(contents) is Inert:
        return f"it holds no dictionary of tensors but a {contents.name}; save model.state_dict()"
    if entries is None:
        return f"it holds no dictionary of tensors but a {type(contents).__name__}; save model.state_dict()"
    for name, fault in _split(entries, "")[1].items():
        return f"it holds no tensors, and its {printable(name)!r} {fault}; save model.state_dict()"
    return "it holds no tensors by name, at its top level or below; save model.state_dict()"


def _whole_module(values):
    """What to do with the first whole module among (key, value) pairs, for a sentence; None without one."""
    for key, value in values:
        if type(value) is Inert and type(value.state) is dict and "_modules" in value.state:
            part = f"[{printable(key)!r}]" if key and type(key) is str else ""
            return (
                f"a whole pickled module, a {value.name}, and no weights by name: where that class can be imported, "
                f"save them, with torch.save(torch.load(FILE, weights_only=False){part}.state_dict(), 'weights.pth'), "
                "and import that"
            )
    return None


def plain_values(contents):
    """The metadata of a file: what its object holds beside tensors, as text, numbers, lists, tuples and dictionaries.

    Dictionaries that hold nothing but tensors are left out. An `Inert` stays one, with plain values in it.
    """
    entries = _entries(contents)
    metadata = _Plain().convert(entries) if entries else {}
    return {} if metadata is _TENSOR else metadata


_TENSOR = object()


class _Plain:
    """Turns what an unpickler gives into plain values, each once, however often and deeply it is contained."""

    def __init__(self):
        self._done = {}

    def convert(self, value, depth=0):
        if value is None or type(value) in (str, bool, int, float):
            return value
        if type(value) is LongText:
            return value.text
        if isinstance(value, NumpyScalar) and value.tensor:
            return self._number(value.tensor)
        if isinstance(value, StoredTensor | NumpyArray | TorchParameter):
            return _TENSOR
        if isinstance(value, TorchDtype):
            return Inert(f"torch.{value.dtype}")
        if type(value) not in (list, tuple, dict, Inert, bytes, memoryview) or depth > MAX_DEPTH:
            return Inert(type(value).__name__)
        if id(value) not in self._done:
            # The value is kept too, so that its identity stays its own; a cycle ends here.
            self._done[id(value)] = value, Inert(type(value).__name__)
            self._done[id(value)] = value, self._container(value, depth + 1)
        return self._done[id(value)][1]

    def _container(self, value, depth):
        if type(value) in (bytes, memoryview):
            return bytes(value)
        if type(value) is Inert:
            parts = (value.arguments, value.state, value.elements, value.entries)
            arguments, *rest = (self.convert(part, depth) for part in parts)
            return Inert(value.name, arguments, *(None if part is _TENSOR else part for part in rest))
        if type(value) is dict:
            converted = {self._key(key, depth): self.convert(inner, depth) for key, inner in value.items()}
            kept = {key: inner for key, inner in converted.items() if inner is not _TENSOR}
            return kept if kept or not converted else _TENSOR
        return type(value)(
            Inert("tensor") if inner is _TENSOR else inner for inner in (self.convert(one, depth) for one in value)
        )

    def _key(self, key, depth):
        return self.convert(key, depth) if type(key) is Inert else key

    @staticmethod
    def _number(tensor):
        try:
            tensor.check()
        except WeightFileError:
            return Inert("numpy scalar")
        return tensor.array().item()
