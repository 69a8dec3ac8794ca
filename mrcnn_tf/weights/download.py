"""Downloads of weights, each because somebody named what to download: a preset, an address, or a model of a hub.

keras.utils.get_file (Keras 3.15) deletes what had arrived of a download that was cut, takes what a killed process left
half written for the file, knows no beginnings of hashes, sends no token, and waits for ever. Here a file gets its name
when it is complete, and the next try goes on where the last one stopped.
"""

import glob
import hashlib
import http.client
import json
import os
import pathlib
import re
import urllib.error
import urllib.request
from urllib.parse import quote, unquote, urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import cache_folder, file_digest
from mrcnn_tf.common.problems import CONSOLE, print_line

TIMEOUT = 30  # seconds that a server may say nothing
BLOCK = 1 << 18  # bytes read at a time
HUB = "https://huggingface.co"
HUB_ADDRESS = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>[^@]+))?")
# Of a hub's model the first of these there, or else its only file with such an ending.
USUAL_FILES = ("model.safetensors", "pytorch_model.bin")
COMPANION = "config.yaml"  # the training config that detectron2 leaves beside its weights, see source_config.py
ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".pkl", ".ckpt", ".h5", ".keras")


def weights_folder():
    """The folder that downloads are kept in: `weights` in the cache folder."""
    return pathlib.Path(cache_folder()) / "weights"


def is_address(source):
    """Whether `fetch_address` takes it: hf://, https:// or http://."""
    return str(source).startswith(("hf://", "https://", "http://"))


def fetch_address(address):
    """The path of the file that an address gives, in a folder of its own in `weights_folder`; no network if it's there.

    UserError, with what to download by hand to where, if it can't be had.

    Args:
        address: "https://host/path/file", or "hf://owner/name", "hf://owner/name/file" and with "@revision" after the
            name: a model of the hub, which is that of the environment's HF_ENDPOINT, with HF_TOKEN.
    """
    if address.startswith("hf://"):
        return _fetch_from_hub(address)
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise UserError(f"{address} is no address ({error}): write it as https://host/path/file.") from error
    name = pathlib.PurePosixPath(unquote(parts.path)).name
    if not parts.hostname or not name.strip("."):
        raise UserError(f"{address} names no file: write it as https://host/path/file.")
    path = _folder_of(address, parts.hostname) / name
    if not path.is_file():
        download(address, path)
    return path


def _folder_of(address, name):
    """A folder that no other address has."""
    return weights_folder() / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def download(address, path, token=None, algorithm=None, digest=None, page=None):
    """Make `path` the file at `address`, or leave it as it is and raise UserError. Goes on with an earlier try's part.

    Args:
        token: sent to the address, and not to where that leads on to.
        algorithm, digest: how the file's hash begins, such as "sha256" and "bf2d0c1e"; None where nobody says.
        page: where else people find the file.
    """
    by_hand = f"download it by hand{f' (see {page})' if page else ''} to {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        print_line(f"Downloading {address} to {path.parent}")
        partial = _transfer(address, path, token, digest)
        if digest and not (found := file_digest(partial, algorithm)).startswith(digest):
            partial.unlink()
            raise UserError(
                f"{address} gave another file than was published (its {algorithm} begins with {found[: len(digest)]} "
                f"and not with {digest}): look for a proxy that changes it, or {by_hand}."
            )
        os.replace(partial, path)
    except UserError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, FileNotFoundError) and path.is_file():
            return  # another process was done with the same part first
        is_kept = any(path.parent.glob(f".{glob.escape(path.name)}.*.part"))
        again = "try again, which goes on where this stopped," if is_kept else "try again"
        raise UserError(f"{address} couldn't be downloaded ({_reason(error)}): {again} or {by_hand}.") from error


def _transfer(address, path, token, digest):
    """The path of the complete download beside `path`."""
    with _open(address, token) as response:
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        total = response.length
        if response.headers.get_content_type() == "text/html":
            raise UserError(f"{address} is a web page: give the address of the file that it links to.")
        if total is None and not response.chunked and not digest:
            raise UserError(
                f"{address} doesn't say how long the file is, so a part couldn't be told from the whole: download it "
                f"by hand to {path}."
            )
        # Parts are told apart by what the server calls this version of the file.
        partial = path.with_name(f".{path.name}.{hashlib.sha256(f'{version} {total}'.encode()).hexdigest()[:8]}.part")
        start = partial.stat().st_size if version and total and partial.is_file() else 0
        if not start or start > total:
            return _write(response, partial, 0, total)
    if start < total:
        with _open(address, token, {"Range": f"bytes={start}-", "If-Range": version}) as response:
            _write(response, partial, start if response.status == http.client.PARTIAL_CONTENT else 0, total)
    return partial


def _write(response, partial, start, total):
    """Writes what comes to `partial` from byte `start` on; two that write the same part write the same bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    partial.touch()
    with Progress(*columns, TimeRemainingColumn(), console=CONSOLE) as bar, open(partial, "r+b") as file:
        task = bar.add_task(partial.name[1:].rsplit(".", 2)[0], total=total, completed=start)
        file.seek(start)
        while block := response.read(BLOCK):
            file.write(block)
            bar.advance(task, len(block))
        if total is not None and file.tell() < total:
            raise ConnectionError(f"the connection was cut after {file.tell()} of {total} bytes")
        file.truncate()  # a longer part of another version
    return partial


def _open(address, token=None, headers=None):
    request = urllib.request.Request(address, headers={"User-Agent": "mrcnn-tf", **(headers or {})})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _reason(error):
    if isinstance(error, urllib.error.HTTPError):
        needs_token = ", as without the HF_TOKEN of somebody who may read it" if error.code in (401, 403) else ""
        return f"the server says {error.code} {error.reason}{needs_token}"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    return getattr(error, "reason", None) or error


# A hub of models: https://huggingface.co/docs/hub/api


def _fetch_from_hub(address):
    match = HUB_ADDRESS.fullmatch(address.rstrip("/"))
    if not match:
        raise UserError(
            f"{address} is no address on a hub: write hf://owner/name, hf://owner/name/file or "
            "hf://owner/name@revision/file."
        )
    hub = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    repository, file, token = match["repository"], match["file"], os.environ.get("HF_TOKEN")
    revision = quote(unquote(match["revision"] or "main"), safe="")
    files = f"{hub}/{repository}/resolve/{revision}/"
    folder = _folder_of(f"{hub} {address}", repository.replace("/", "-"))
    kept = pathlib.PurePosixPath(file).name if file else _choose([path.name for path in folder.glob("*")])
    if kept and (folder / kept).is_file():
        return folder / kept
    try:
        file = file or _find_on_hub(address, f"{hub}/api/models/{repository}/revision/{revision}", files, token)
        config = str(pathlib.PurePosixPath(file).with_name(COMPANION))
        if not (folder / COMPANION).is_file() and _exists(files + quote(config), token):
            download(files + quote(config), folder / COMPANION, token)
        path = folder / pathlib.PurePosixPath(file).name
        download(files + quote(file), path, token)
    except UserError:
        raise
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"What {address} holds couldn't be read ({_reason(error)}): try again, or download its file of weights by "
            f"hand into {folder}."
        ) from error
    return path


def _find_on_hub(address, listing, files, token):
    """The name of a model's file of weights: of those that the hub lists, or of the usual ones where it lists none."""
    try:
        with _open(listing, token) as response:
            names = [file["rfilename"] for file in json.load(response)["siblings"]]
    except urllib.error.HTTPError as error:
        if error.code != http.client.NOT_FOUND:
            raise
        names = [name for name in USUAL_FILES if _exists(files + name, token)]
    name = _choose(names)
    if name is None:
        weights = [name for name in names if name.endswith(ENDINGS)]
        raise UserError(
            f"{address} holds {'several files' if weights else 'no file'} of weights{': ' if weights else ''}"
            f"{', '.join(weights)}: name one, as hf://owner/name/file."
        )
    return name


def _exists(address, token):
    try:
        _open(address, token).close()
    except urllib.error.HTTPError as error:
        if error.code != http.client.NOT_FOUND:
            raise
        return False
    return True


def _choose(names):
    """The file of weights among a model's files: a usual one, or the only one; else None."""
    weights = [name for name in names if name.endswith(ENDINGS) and not name.startswith(".")]
    usual = [name for name in USUAL_FILES if name in weights]
    return usual[0] if usual else weights[0] if len(weights) == 1 else None
