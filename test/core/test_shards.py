# SPDX-License-Identifier: Apache-2.0
"""Tar shards: written, read from disk and over HTTP, split between readers, and the same after a resume."""

import functools
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

from foundry_core.data import shards
from foundry_core.data.shards import BLOCK, ShardReader, ShardSet, expand, read_shard, write_shards
from foundry_core.data.stream import ShapeStream, StreamConfig
from foundry_core.errors import InputError


def marked(count: int) -> list[np.ndarray]:
    """Shapes that say their number: it is the first coordinate of the first point."""
    shapes = np.random.default_rng(0).normal(size=(count, 20, 3)).astype(np.float16)
    shapes[:, 0, 0] = np.arange(count)
    return list(shapes)


def numbers(reader: ShardReader, indices) -> list[int]:
    return [int(reader.shape(index)[0, 0]) for index in indices]


def reader_of(folder, count=64, per_shard=8, share=1.0, **settings) -> ShardReader:
    pattern = write_shards(marked(count), folder, per_shard)
    return ShardReader(ShardSet(urls=pattern, per_visit=per_shard, **settings), 3, share)


def test_ranges_expand_as_wide_as_they_are_written():
    assert expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand("{0..1}/b{1..2}") == ["0/b1", "0/b2", "1/b1", "1/b2"]
    assert expand("s3://bucket/one.tar") == ["s3://bucket/one.tar"]
    for pattern in ("a{2..1}", "a{x,y}", "a{0..99999999}"):
        with pytest.raises(InputError, match="range"):
            expand(pattern)


def test_written_shards_are_plain_tars_of_every_shape_in_another_order(tmp_path):
    shapes = marked(10)
    pattern = write_shards(shapes, tmp_path, 4)
    paths = expand(pattern)
    assert [len(read_shard(path)) for path in paths] == [4, 3, 3]
    seen = {}
    for path in paths:
        with tarfile.open(path) as archive:
            for name in archive.getnames():
                seen[int(name.removesuffix(".npy"))] = np.load(io.BytesIO(archive.extractfile(name).read()))
    assert all(np.array_equal(seen[number], shape) for number, shape in enumerate(shapes))
    assert list(seen) != sorted(seen)
    with pytest.raises(InputError, match="holds shards already"):
        write_shards(shapes, tmp_path, 4)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_every_shape_comes_once_before_any_comes_again(tmp_path, lanes):
    reader = reader_of(tmp_path, lanes=lanes)
    first, second = numbers(reader, range(64)), numbers(reader, range(64, 128))
    assert sorted(first) == sorted(second) == list(range(64)) and first != second


def test_a_sample_is_a_function_of_seed_and_index(tmp_path):
    one = reader_of(tmp_path, lanes=2)
    in_order = numbers(one, range(100))
    resumed = ShardReader(one.config, 3)
    assert numbers(resumed, range(50, 100)) == in_order[50:]
    backwards = ShardReader(one.config, 3)
    assert numbers(backwards, reversed(range(100))) == in_order[::-1]
    assert numbers(ShardReader(one.config, 4), range(100)) != in_order


def test_readers_that_divide_the_lanes_read_different_shards(tmp_path, monkeypatch):
    config = reader_of(tmp_path, count=256, lanes=4).config
    read = []
    monkeypatch.setattr(shards, "read_shard", lambda url: read.append(url) or read_shard(url))
    by_reader = []
    for process, worker in ((0, 0), (0, 1), (1, 0), (1, 1)):
        # two processes with 8 clouds of each batch of 16, two data workers that take batches by turns
        reader, batches = ShardReader(config, 3), range(worker, 16, 2)
        for batch in batches:
            numbers(reader, range((2 * batch + process) * BLOCK, (2 * batch + process + 1) * BLOCK))
        by_reader.append(set(read))
        read.clear()
    assert sum(map(len, by_reader)) == len(set().union(*by_reader)) == 32


def test_a_share_of_the_stream_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    reader = reader_of(tmp_path, count=256, lanes=2, share=0.25)
    read = []
    monkeypatch.setattr(shards, "read_shard", lambda url: read.append(url) or read_shard(url))
    chosen = np.flatnonzero(np.random.default_rng(0).random(1024) < 0.25)
    seen = numbers(reader, chosen)
    assert len(read) <= 34 and len(set(seen)) > 130  # 32 shards hold what 256 of 1,024 samples draw


def test_shards_come_over_http_and_a_broken_line_is_tried_again(tmp_path, monkeypatch):
    write_shards(marked(8), tmp_path, 4)
    requests = []

    class Flaky(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            if len(requests) == 1:  # half a shard, then nothing
                data = (tmp_path / "shards-000000.tar").read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:700])
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(shards.time, "sleep", lambda _: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Flaky, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/shards-{{000000..000001}}.tar"
        stream = ShapeStream(StreamConfig(compositions=0, categories=0, shards=[ShardSet(urls=url)]), 16, 0)
        assert stream[0].shape == (16, 3) and len(requests) == 2
        with pytest.raises(InputError, match="absent.tar: cannot be read as a tar shard"):
            read_shard(f"http://127.0.0.1:{server.server_port}/absent.tar")
        server.shutdown()


def tar_of(path, **members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def saved(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_foreign_members_are_left_alone_and_bad_shapes_named(tmp_path):
    good = saved(marked(1)[0])
    assert len(read_shard(tar_of(tmp_path / "a.tar", x_points_npy=good, x_json=b"{}", y_npy=good))) == 2
    cases = {
        "no .npy array": saved(np.array([{}]), allow_pickle=True),
        r"expected floating point \[n,3\]": saved(np.zeros((4, 2))),
        "no shape": saved(np.full((4, 3), np.nan)),
    }
    for number, (message, data) in enumerate(cases.items()):
        with pytest.raises(InputError, match=f"bad{number}.tar: x.npy: .*{message}"):
            read_shard(tar_of(tmp_path / f"bad{number}.tar", x_npy=data))
    with pytest.raises(InputError, match="empty.tar: no .npy member"):
        read_shard(tar_of(tmp_path / "empty.tar", x_txt=b""))
    (tmp_path / "torn.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:600])
    for name in ("torn", "absent"):
        with pytest.raises(InputError, match=f"{name}.tar: cannot be read as a tar shard"):
            read_shard(str(tmp_path / f"{name}.tar"))


def test_shards_join_the_stream_by_their_weight_and_the_card(tmp_path):
    pattern = write_shards(marked(16), tmp_path, 8)
    config = StreamConfig(shards=[ShardSet(urls=pattern, weight=2, licence="CC0")])
    stream = ShapeStream(config, 64, 0)
    assert stream.shares.tolist() == pytest.approx([1 / 6, 1 / 6, 2 / 3])
    assert stream.shard_sources[0].reader.share == pytest.approx(2 / 3)
    assert all(stream[i].shape == (64, 3) and np.array_equal(stream[i], stream[i]) for i in range(12))
    assert stream.provenance()[-1].name == f"shards {pattern}" and stream.provenance()[-1].licence == "CC0"


def test_the_command_writes_what_data_options_take(tmp_path, foundry):
    from foundry_core.cli.train import data_sets

    points = np.stack(marked(6))
    np.savez(tmp_path / "set.npz", points=points, split=np.array([0, 0, 0, 0, 1, 1]))
    code, out, _ = foundry("shards", tmp_path / "set.npz", "--out", tmp_path / "out", "--per-shard", 3)
    pattern = str(tmp_path / "out" / "shards-{000000..000001}.tar")
    assert code == 0 and pattern in out.replace("\n", "")
    assert sum(len(read_shard(url)) for url in expand(pattern)) == 4  # the train split
    listed = tmp_path / "sets.yaml"
    listed.write_text("shards:\n  - {urls: 'out/shards-{000000..000001}.tar', weight: 2}\n  - {urls: 's3://b/x.tar'}\n")
    sets = data_sets([pattern, "https://host/x.tar", str(listed), str(tmp_path / "set.npz")], tmp_path)
    assert [each.urls for each in sets["shards"]] == [pattern, "https://host/x.tar", pattern, "s3://b/x.tar"]
    assert [each.path for each in sets["files"]] == [tmp_path / "set.npz"]
