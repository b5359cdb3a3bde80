"""Objects on disk: what is whole is found again, what is damaged is a miss, and never more."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from lamina import config
from lamina.llvm import cache

KEY = "program 1 for avx2"
CODE = bytes(range(256)) * 20
MANIFEST = {"arena": 4096, "arguments": ["x", "y"]}

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and owners are POSIX's")


@pytest.fixture
def where(tmp_path):
    folder = tmp_path / "objects"
    with config.override(cache=folder):
        yield folder
    cache.refusal.cache_clear()


def entry_file(where):
    (file,) = where.glob("*.lamina")
    return file


def test_an_entry_is_found_again(where):
    assert cache.fetch(KEY) is None
    assert cache.store(KEY, CODE, MANIFEST)
    assert cache.fetch(KEY) == cache.Entry(CODE, MANIFEST)
    assert cache.fetch("another key") is None
    assert [file.suffix for file in where.iterdir()] == [".lamina"]


def test_a_later_entry_replaces_an_earlier_one(where):
    cache.store(KEY, CODE, MANIFEST)
    cache.store(KEY, b"new", {})
    assert cache.fetch(KEY) == cache.Entry(b"new", {})


@pytest.mark.parametrize("at", [0, 5, 16, 20, 30, 39, 40, 60, 71, 72, 80, 95, 140, 2000, -1])
def test_a_changed_byte_anywhere_is_a_miss_and_the_entry_goes(where, at):
    cache.store(KEY, CODE, MANIFEST)
    file = entry_file(where)
    content = bytearray(file.read_bytes())
    content[at] ^= 0x40
    file.write_bytes(content)
    assert cache.fetch(KEY) is None
    assert not file.exists()


@pytest.mark.parametrize("length", [0, 1, 15, 16, 40, 71, 72, 100, 1000, -1])
def test_a_truncated_entry_is_a_miss_and_goes(where, length):
    cache.store(KEY, CODE, MANIFEST)
    file = entry_file(where)
    file.write_bytes(file.read_bytes()[:length])
    assert cache.fetch(KEY) is None
    assert not file.exists()


def test_a_longer_entry_is_a_miss(where):
    cache.store(KEY, CODE, MANIFEST)
    file = entry_file(where)
    file.write_bytes(file.read_bytes() + b"x")
    assert cache.fetch(KEY) is None


def test_another_keys_entry_under_this_name_is_a_miss():
    content = cache.encode("another", CODE, MANIFEST)
    assert cache.decode(content, "another") is not None
    assert cache.decode(content, KEY) is None


def test_lengths_of_no_real_file_are_a_miss():
    content = bytearray(cache.encode(KEY, CODE, MANIFEST))
    content[16:24] = b"\xff" * 8
    assert cache.decode(bytes(content), KEY) is None


@posix
def test_the_folder_is_made_for_this_user_alone(where):
    cache.store(KEY, CODE, MANIFEST)
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert entry_file(where).stat().st_uid == os.getuid()


@posix
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777])
def test_an_open_folder_is_not_used(where, mode):
    where.mkdir()
    where.chmod(mode)
    assert not cache.store(KEY, CODE, MANIFEST)
    assert cache.fetch(KEY) is None
    assert list(where.iterdir()) == []
    assert cache.refusal(where) == f"is open to other users (mode {mode:o}; 700 is needed)"


@posix
def test_a_folder_of_another_user_is_not_used(where, monkeypatch):
    where.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: where.stat().st_uid + 1)
    assert cache.folder() is None
    assert cache.refusal(where) == "belongs to another user"


@posix
def test_links_are_not_followed(where, tmp_path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    where.symlink_to(real)
    assert cache.folder() is None
    where.unlink()
    cache.refusal.cache_clear()
    cache.store(KEY, CODE, MANIFEST)
    file = entry_file(where)
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert cache.fetch(KEY) is None
    assert elsewhere.exists()


def test_off_means_off(where):
    cache.store(KEY, CODE, MANIFEST)
    with config.override(cache="off"):
        assert cache.folder() is None
        assert cache.fetch(KEY) is None
        assert not cache.store(KEY, CODE, MANIFEST)
        assert cache.clear() == 0
    assert cache.fetch(KEY) is not None


def test_a_folder_that_cannot_be_made_is_not_used(tmp_path):
    (tmp_path / "file").write_text("")
    with config.override(cache=tmp_path / "file" / "objects"):
        assert not cache.store(KEY, CODE, MANIFEST)
        assert cache.fetch(KEY) is None


def test_a_full_disk_is_no_failure(where, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not cache.store(KEY, CODE, MANIFEST)
    assert list(where.iterdir()) == []


def test_the_least_recently_used_entries_go_first(where):
    now = time.time()
    for number in range(5):
        cache.store(f"key {number}", CODE, MANIFEST)
        os.utime(cache.path_of(f"key {number}", where), (now, now - 100_000 + number))
    assert cache.fetch("key 0") is not None  # used now
    size = cache.path_of("key 0", where).stat().st_size
    assert cache.trim(where, 2 * size) == 3
    left = [number for number in range(5) if cache.fetch(f"key {number}")]
    assert left == [0, 4]


def test_storing_keeps_within_the_bound(where, monkeypatch):
    monkeypatch.setattr(cache, "MOST_BYTES", 3 * (len(CODE) + 200))
    for number in range(8):
        cache.store(f"key {number}", CODE, MANIFEST)
    assert len(list(where.iterdir())) <= 3


def test_forgotten_drafts_go_and_fresh_ones_stay(where):
    cache.store(KEY, CODE, MANIFEST)
    old, fresh = where / "1-a.draft", where / "2-b.draft"
    old.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(old, (1, 1))
    cache.trim(where, cache.MOST_BYTES)
    assert not old.exists() and fresh.exists()


def test_clear_removes_every_entry(where):
    for number in range(3):
        cache.store(f"key {number}", CODE, MANIFEST)
    assert cache.clear() == 3
    assert cache.fetch("key 1") is None


def test_threads_and_processes_share_a_folder(where):
    """Writers of one key, each with its own content: a reader sees a whole entry or none."""
    program = f"""
from lamina import config
from lamina.llvm import cache
config.set_cache_folder({str(where)!r})
for number in range(60):
    cache.store("shared", bytes([number]) * 50_000, {{"number": number}})
    entry = cache.fetch("shared")
    assert entry is None or entry.code == bytes([entry.manifest["number"]]) * 50_000
"""
    children = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    wrong = []

    def read():
        while any(child.poll() is None for child in children):
            entry = cache.fetch("shared")
            if entry is not None and entry.code != bytes([entry.manifest["number"]]) * 50_000:
                wrong.append(entry.manifest)

    reader = threading.Thread(target=read)
    reader.start()
    assert [child.wait(60) for child in children] == [0, 0, 0]
    reader.join()
    assert not wrong
    assert [file.suffix for file in where.iterdir()] == [".lamina"]


def test_the_generators_digest_is_stable_and_follows_the_sources(tmp_path, monkeypatch):
    assert len(cache.generator_digest()) == 32
    for name in ("__init__", "types", "ir/graph", "llvm/emit"):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {name}\n")
    monkeypatch.setattr(cache.lamina, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(cache, "_IMPORTED", time.time() + 1000)
    fresh = cache.generator_digest.__wrapped__
    before = fresh()
    assert before == fresh() != cache.generator_digest()
    (tmp_path / "__init__.py").write_text("# not a generator\n")
    assert fresh() == before
    (tmp_path / "llvm" / "emit.py").write_text("# changed\n")
    changed = fresh()
    assert changed != before
    with monkeypatch.context() as patch:
        patch.setattr(cache.binding, "version", lambda: "llvmlite 99")
        assert fresh() != changed
    assert fresh() == changed
    (tmp_path / "llvm" / "emit.py").rename(tmp_path / "llvm" / "emits.py")
    assert fresh() not in {before, changed}


def test_sources_changed_since_the_import_are_not_those_that_run(monkeypatch):
    fresh = cache.generator_digest.__wrapped__
    monkeypatch.setattr(cache, "_IMPORTED", 0.0)
    assert fresh() != fresh()


def test_without_sources_nothing_is_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.lamina, "__file__", str(tmp_path / "__init__.py"))
    fresh = cache.generator_digest.__wrapped__
    assert fresh() != fresh()
