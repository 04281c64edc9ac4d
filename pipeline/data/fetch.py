"""Fetch one archive, by HTTP or by `npm pack`. A partial HTTP download is resumed; a stalled or slow one is stopped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from pipeline.base.errors import PipelineError
from pipeline.base.files import sha256_of
from pipeline.base.params import DownloadParams, Source

CHUNK_BYTES = 1 << 16


class SourceFailed(PipelineError):
    """This source gave no verified archive; another source may."""


class SourceSlow(SourceFailed):
    """This source works, but below the minimum speed. It is tried again when no other source is left."""


class _Interrupted(Exception):
    """The transfer failed, but another attempt may succeed."""


def fetch_archive(source: Source, folder: Path, params: DownloadParams, *, last_hope: bool) -> Path:
    """Fetch `source` into `folder`, continuing an earlier partial download, and check its SHA-256.

    Args:
        last_hope: no other source is left, so a slow one is accepted.

    Returns:
        The path of the verified archive.

    Raises:
        SourceFailed: the source refused, stalled, was too slow, or sent wrong bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{source.name}.archive"
    if archive.exists() and sha256_of(archive) == source.sha256:
        return archive
    part = archive.with_suffix(".part")
    fetch = _npm_pack if source.format == "npm_package" else _http_get
    for attempt in range(1, params.attempts + 1):
        try:
            fetch(source, part, params, last_hope)
            if (digest := sha256_of(part)) != source.sha256:
                part.unlink()  # some bytes are wrong, and resuming would keep them
                raise _Interrupted(f"its SHA-256 is {digest[:12]}…, not {source.sha256[:12]}…")
            return part.replace(archive)
        except _Interrupted as reason:
            if attempt == params.attempts:
                raise SourceFailed(f"{reason} (attempt {attempt} of {params.attempts})") from None
            pause = min(2.0 ** (attempt - 1), params.stall_seconds)
            print(f"{source.name}: {reason}; trying again in {pause:.0f} s", flush=True)
            time.sleep(pause)  # back-off: an overloaded server needs time
    raise AssertionError("unreachable: attempts is at least 1")


def _http_get(source: Source, part: Path, params: DownloadParams, last_hope: bool) -> None:
    """Append the missing bytes to `part`, by one request."""
    have = part.stat().st_size if part.exists() else 0
    if have >= source.bytes:
        if have > source.bytes:
            part.unlink()
            raise _Interrupted(f"the partial download was longer ({have} bytes) than the archive")
        return
    # If this is the last source, a stall or an unreachable host is worth another attempt.
    given_up = _Interrupted if last_hope else SourceFailed
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(source.location, headers=headers, stream=True, timeout=params.stall_seconds) as response:
            if response.status_code == 416:  # the server cannot continue from this byte
                part.unlink()
                raise _Interrupted("the server refused to resume")
            if response.status_code in (408, 429) or response.status_code >= 500:
                raise _Interrupted(f"the server answered {response.status_code} {response.reason}")
            if not response.ok:
                raise SourceFailed(f"the server answered {response.status_code} {response.reason}")
            resumed = response.status_code == 206
            _save(response, source, part, params, have if resumed else 0, last_hope)
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise given_up(f"no byte for {params.stall_seconds:g} s") from None
    except requests.exceptions.SSLError:
        raise SourceFailed("its certificate is not trusted") from None
    except requests.ConnectionError:
        raise given_up("the host cannot be reached") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError):
        arrived = part.stat().st_size if part.exists() else 0
        raise _Interrupted(f"the transfer broke off after {arrived:,} of {source.bytes:,} bytes") from None


def _save(
    response: requests.Response, source: Source, part: Path, params: DownloadParams, have: int, last_hope: bool
) -> None:
    """Write the response's body to `part` from byte `have` on. Show a progress bar, and watch the speed."""
    window_seconds = params.stall_seconds / 2  # speed is measured over windows: a short pause does not drop a source
    window_start, window_bytes = time.monotonic(), 0
    often = 0.2 if sys.stderr.isatty() else 10.0  # in a log, each update is a line
    bar = tqdm(desc=source.name, total=source.bytes, initial=have, unit="B", unit_scale=True, mininterval=often)
    with part.open("ab" if have else "wb") as file, bar:
        while chunk := response.raw.read1(CHUNK_BYTES):  # does not wait for a whole chunk, so a slow source shows
            file.write(chunk)
            bar.update(len(chunk))
            have += len(chunk)
            window_bytes += len(chunk)
            if have > source.bytes:
                break
            elapsed = time.monotonic() - window_start
            if elapsed >= window_seconds:
                speed = window_bytes / elapsed / 1000
                if speed < params.minimum_kb_per_second and not last_hope:
                    raise SourceSlow(f"slow: {speed:.0f} kB/s, below {params.minimum_kb_per_second:g} kB/s")
                window_start, window_bytes = time.monotonic(), 0
    if have < source.bytes:
        raise _Interrupted(f"the transfer broke off after {have:,} of {source.bytes:,} bytes")
    if have > source.bytes:
        part.unlink()
        raise _Interrupted(f"the archive is longer than the expected {source.bytes} bytes")


def _npm_pack(source: Source, part: Path, params: DownloadParams, last_hope: bool) -> None:
    """Fetch a package's tarball by `npm pack`, which uses the user's registry, proxy and credentials."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceFailed("npm is not installed")
    patience = None  # seconds for the whole command, because npm shows no progress
    if params.minimum_kb_per_second and not last_hope:
        patience = params.stall_seconds + source.bytes / 1000 / params.minimum_kb_per_second
    print(f"{source.name}: npm pack {source.location} ({source.bytes / 1e6:.0f} MB)", flush=True)
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        command = [npm, "pack", source.location, "--pack-destination", folder, "--loglevel", "error"]
        command += ["--ignore-scripts", f"--fetch-timeout={params.stall_seconds * 1000:.0f}"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=patience)
        except subprocess.TimeoutExpired:
            raise SourceSlow(f"npm pack was not finished after {patience:.0f} s") from None
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["no message"]
            raise _Interrupted(f"npm pack failed: {lines[0]}") from None
        (tarball,) = Path(folder).glob("*.tgz")
        tarball.replace(part)
