"""Downloads: from a server of this machine, which cuts, lies, and is gone."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import re
import resource
import threading

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights import download, presets

CONTENT = bytes(range(256)) * 5000  # several blocks


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, path -> bytes; `cut`: after so many bytes the connection ends."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.requests, self.headers, self.token = {}, None, [], {"ETag": '"one"'}, None
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            return self.send_error(401)
        content = server.files.get(self.path.split("?")[0])
        if content is None:
            return self.send_error(404)
        if isinstance(content, str):  # leads on
            self.send_response(302)
            self.send_header("Location", content)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        start = start if self.headers.get("If-Range") == server.headers.get("ETag") else 0
        self.send_response(206 if start else 200)
        for name, value in ({"Content-Length": len(content) - start} | server.headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[start : server.cut])
        self.close_connection = True

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def refused(*words):
    """The one sentence names all words; gives it as text."""
    told = []
    with pytest.raises(UserError) as error:
        yield told
    told.append(str(error.value))
    assert all(word in told[0] for word in words), told[0]


def _files(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_a_whole_file_is_kept_and_used_without_the_network(server, cache, capsys):
    server.files["/models/a%20model.pth"] = CONTENT
    path = download.fetch_address(f"{server.address}/models/a%20model.pth?version=2")
    assert path.read_bytes() == CONTENT
    assert path.name == "a model.pth" and cache in path.parents and _files(cache) == ["a model.pth"]
    told = capsys.readouterr()
    assert "a model.pth" in told.err and not told.out  # --json has stdout for itself
    server.files.clear()
    assert download.fetch_address(f"{server.address}/models/a%20model.pth?version=2") == path
    assert len(server.requests) == 1


def test_two_addresses_never_share_a_file(server):
    server.files |= {"/a/model.pth": b"first", "/b/model.pth": b"second"}
    paths = [download.fetch_address(f"{server.address}/{folder}/model.pth") for folder in "ab"]
    assert [path.read_bytes() for path in paths] == [b"first", b"second"]


@pytest.mark.parametrize("resumes", [True, False])
def test_a_cut_download_is_never_taken_for_the_file_and_goes_on(server, cache, resumes):
    address = f"{server.address}/model.pth"
    server.files["/model.pth"], server.cut = CONTENT, 700_000
    server.headers = {"ETag": '"one"'} if resumes else {}
    with refused(address, f"cut after 700000 of {len(CONTENT)} bytes", "try again, which goes on", "model.pth."):
        download.fetch_address(address)
    assert [name for name in _files(cache) if name.endswith(".part")] == _files(cache) != []
    server.cut = None
    assert download.fetch_address(address).read_bytes() == CONTENT
    assert _files(cache) == ["model.pth"]
    ranges = [headers["Range"] for _, headers in server.requests if "Range" in headers]
    assert ranges == (["bytes=700000-"] if resumes else [])


def test_a_part_of_another_version_is_left_aside(server, cache):
    address = f"{server.address}/model.pth"
    server.files["/model.pth"], server.cut = CONTENT, 700_000
    with refused("cut"):
        download.fetch_address(address)
    server.files["/model.pth"], server.cut, server.headers = CONTENT[::-1], None, {"ETag": '"two"'}
    assert download.fetch_address(address).read_bytes() == CONTENT[::-1]


def test_a_server_without_lengths_cuts_too(server, cache):
    address = f"{server.address}/model.pth"
    server.files["/model.pth"] = b"5\r\nwhole\r\n0\r\n\r\n"
    server.headers, server.cut = {"Transfer-Encoding": "chunked", "Content-Length": None}, 7
    with refused(address, "the connection was cut"):
        download.fetch_address(address)
    server.cut = None
    assert download.fetch_address(address).read_bytes() == b"whole"
    server.headers = {"Content-Length": None}
    with refused("doesn't say how long the file is", "by hand to"):
        download.fetch_address(f"{server.address}/model.pth?2")


def test_the_remedy_of_every_refusal_works(server, cache):
    address = f"{server.address}/model.pth"
    with refused(address, "404 Not Found", "try again or download it by hand to") as told:
        download.fetch_address(address)
    path = _path_to_fill(told[0])
    path.write_bytes(b"by hand")
    assert download.fetch_address(address) == path


def _path_to_fill(sentence):
    return pathlib.Path(re.search(r"by hand.* to (\S+)\.$", sentence)[1])


def test_no_network(cache):
    with Server() as closed:
        address = f"{closed.address}/model.pth"
    with refused(address, "refused", "by hand to"):
        download.fetch_address(address)
    assert _files(cache) == []


def test_a_disk_without_room(server, cache):
    address = f"{server.address}/model.pth"
    server.files["/model.pth"] = CONTENT
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # no file can be larger
    try:
        with refused("model.pth", "File too large", "try again, which goes on", "by hand to"):
            download.fetch_address(address)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [name for name in _files(cache) if name.endswith(".part")] == _files(cache) != []
    assert download.fetch_address(address).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(server, cache):
    cache.mkdir()
    (cache / "weights").write_text("a file where the folder should be")
    with refused("model.pth", "Not a directory"):
        download.fetch_address(f"{server.address}/model.pth")


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_wrong_hash(server, cache, algorithm):
    server.files["/model.pth"] = CONTENT
    found = hashlib.new(algorithm, CONTENT).hexdigest()[:8]
    digest, address, path = "0" * 8, f"{server.address}/model.pth", cache / "weights" / "model.pth"
    with refused(address, algorithm, found, digest, "page", str(path)):
        download.download(address, path, algorithm=algorithm, digest=digest, page="https://page")
    assert _files(cache) == []
    download.download(address, path, algorithm=algorithm, digest=found)
    assert path.read_bytes() == CONTENT


def test_web_pages_and_addresses_of_nothing_are_refused(server, cache):
    server.files["/blob/model.pth"], server.headers = b"<html>", {"Content-Type": "text/html; charset=utf-8"}
    with refused("is a web page", "/blob/model.pth"):
        download.fetch_address(f"{server.address}/blob/model.pth")
    for address in (server.address, f"{server.address}/..", "https://[::1/x", "https:///x"):
        with refused(address, "https://host/path/file"):
            download.fetch_address(address)
    assert _files(cache) == []


# A hub of models.


@pytest.fixture
def hub(server, monkeypatch):
    """A hub with the model owner/name; gives a function that puts files into it."""
    monkeypatch.setenv("HF_ENDPOINT", server.address)

    def put(*names, revision="main", listed=True):
        files = {f"/owner/name/resolve/{revision}/{name}": f"{revision} {name}".encode() for name in names}
        listing = {"siblings": [{"rfilename": name} for name in ["README.md", *names]]}
        listing = {f"/api/models/owner/name/revision/{revision}": json.dumps(listing).encode()} if listed else {}
        server.files |= files | listing

    return put


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["pytorch_model.bin", "model.safetensors", "other.pth"], "model.safetensors"),
        (["pytorch_model.bin", "other.pth"], "pytorch_model.bin"),
        (["sub/model_final.pth"], "sub/model_final.pth"),
    ],
)
def test_a_hub_model_has_one_file_of_weights(hub, server, names, chosen):
    hub(*names)
    path = download.fetch_address("hf://owner/name")
    assert path.read_text() == f"main {chosen}" and chosen.endswith(path.name)
    server.files.clear()
    assert download.fetch_address("hf://owner/name") == path
    assert len(server.requests) == 3  # the list, a config that isn't there, the file


def test_a_hub_without_listings_is_asked_for_the_usual_names(hub):
    hub("pytorch_model.bin", listed=False)
    assert download.fetch_address("hf://owner/name/").read_text() == "main pytorch_model.bin"


def test_a_file_and_a_revision_on_the_hub(hub):
    hub("a.pth", "sub/b.pth", revision="v1.0")
    assert download.fetch_address("hf://owner/name@v1.0/sub/b.pth").read_text() == "v1.0 sub/b.pth"
    hub("a.pth", "b.pth")
    with refused("hf://owner/name ", "several files", "a.pth, b.pth", "hf://owner/name/file"):
        download.fetch_address("hf://owner/name")
    assert download.fetch_address("hf://owner/name/a.pth").read_text() == "main a.pth"
    with refused("owner/name/resolve/main/c.pth", "404", "by hand to"):
        download.fetch_address("hf://owner/name/c.pth")


def test_the_training_config_beside_the_weights_comes_with_them(hub):
    hub("sub/model_final.pth", "sub/config.yaml", "config.yaml")
    for address in ("hf://owner/name", "hf://owner/name/sub/model_final.pth"):
        path = download.fetch_address(address)
        assert path.name == "model_final.pth" and path.with_name("config.yaml").read_text() == "main sub/config.yaml"


def test_the_token_goes_to_the_hub_and_no_further(hub, server, monkeypatch):
    hub("model.safetensors")
    server.token = "secret"
    with refused("hf://owner/name", "401", "HF_TOKEN"):
        download.fetch_address("hf://owner/name")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(Server())
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        other.files["/store"] = b"stored"
        server.files["/owner/name/resolve/main/model.safetensors"] = f"{other.address}/store"
        assert download.fetch_address("hf://owner/name").read_bytes() == b"stored"
        thread.join()
        assert "Authorization" not in other.requests[0][1]


@pytest.mark.parametrize("address", ["hf://name", "hf://owner/name@", "hf://a/b@c@d", "hf:///x/y"])
def test_no_address_on_the_hub(address):
    with refused(address, "hf://owner/name@revision/file"):
        download.fetch_address(address)


def test_a_hub_model_without_weights_or_with_a_broken_listing(hub, server):
    hub()
    with refused("hf://owner/name", "no file of weights"):
        download.fetch_address("hf://owner/name")
    server.files["/api/models/owner/name/revision/main"] = b"[1, 2]"
    with refused("hf://owner/name", "couldn't be read", "by hand into") as told:
        download.fetch_address("hf://owner/name")
    folder = pathlib.Path(re.search(r"into (\S+)\.$", told[0])[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.pth").write_bytes(b"by hand")
    assert download.fetch_address("hf://owner/name") == folder / "mine.pth"


# Presets.


def test_a_preset_is_downloaded_once_and_checked(server, cache):
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    preset = presets.Preset(
        "x", "torchvision", "https://page", "MIT", f"{server.address}/m.pth", "m.pth", "sha256", digest
    )
    with refused("404", "https://page", str(cache / "weights" / "m.pth")):
        presets.preset_file(preset)
    server.files["/m.pth"] = CONTENT
    path = presets.preset_file(preset)
    assert path == cache / "weights" / "m.pth" and path.read_bytes() == CONTENT
    server.files.clear()
    assert presets.preset_file(preset) == path
    path.write_bytes(b"something else")
    with refused(str(path), "isn't the file that was published", digest, "delete it"):
        presets.preset_file(preset)
    path.unlink()
    server.files["/m.pth"] = CONTENT
    assert presets.preset_file(preset).read_bytes() == CONTENT


def test_a_preset_and_an_address_are_located(server, monkeypatch):
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    name = f"m-{digest}.pth"
    preset = presets.Preset("x", "y", "https://page", "MIT", f"{server.address}/{name}", name, "sha256", digest)
    monkeypatch.setattr(presets, "_read_presets", lambda: {"x": preset})
    server.files |= {f"/{name}": CONTENT, "/other/mine.pth": CONTENT, "/other/mine.pkl": b"mine"}
    for source in ("x", name, "m", preset.address):
        assert presets.locate(source) == (presets.preset_file(preset), preset)
    assert len(server.requests) == 1
    path, known = presets.locate(f"{server.address}/other/mine.pth")
    assert path.name == "mine.pth" and known == preset
    assert presets.locate(f"{server.address}/other/mine.pkl")[1] is None
