"""Starts a TensorFlow Serving, or its stand-in, for tests."""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

STUB = pathlib.Path(__file__).with_name("serving_stub.py")
PATIENCE = 180  # seconds until the models are loaded, on a machine that does other things, too
BATCHING = "max_batch_size { value: 4 }\nbatch_timeout_micros { value: 150000 }\nnum_batch_threads { value: 1 }\n"


@dataclasses.dataclass
class Server:
    """Where it listens, as `ServedModel` takes it, where its output goes, and its models, name -> folder."""

    rest: str
    grpc: str
    log: pathlib.Path
    models: dict[str, pathlib.Path]


@contextlib.contextmanager
def serving(program, models, folder):
    """A `Server` of models, name -> folder of versions, with batching on; `program` is the command to start it by."""
    ports = _free_ports(2)
    config = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
        for name, path in models.items()
    )
    (folder / "models.config").write_text(f"model_config_list {{ {config} }}")
    (folder / "batching.config").write_text(BATCHING)
    command = [*program, f"--port={ports[0]}", f"--rest_api_port={ports[1]}", "--enable_batching"]
    command += [f"--model_config_file={folder}/models.config", f"--batching_parameters_file={folder}/batching.config"]
    server = Server(f"http://127.0.0.1:{ports[1]}", f"grpc://127.0.0.1:{ports[0]}", folder / "server.log", models)
    environment = os.environ | {"PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "-1"}
    with open(server.log, "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        for name in models:
            _await(process, f"{server.rest}/v1/models/{name}", server.log)
        yield server
    finally:
        process.kill()
        process.wait()


def stub_command():
    """The stand-in's command."""
    return [sys.executable, str(STUB)]


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _await(process, url, log):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=5) as answer:
            if json.load(answer)["model_version_status"][0]["state"] == "AVAILABLE":
                return
        time.sleep(0.2)
    raise RuntimeError(f"The server didn't come up: {log.read_text()[-2000:]}")
