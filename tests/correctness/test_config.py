"""Settings: from the environment, by setters, refused with the allowed values named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina import config


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for variable, _, _ in config._SETTINGS.values():
        monkeypatch.delenv(variable, raising=False)
    config.reset()
    yield
    monkeypatch.undo()
    config.reset()


def test_defaults():
    assert config.executor() == "llvm"
    assert config.threads() is None
    assert config.cpu() == "native"
    assert config.dump() == frozenset()
    assert config.arena() == "planned"
    assert config.check() == "off"
    assert config.data_folder() is None
    assert (config.floatx(), config.epsilon()) == ("float32", 1e-7)
    assert config.image_data_format() == "channels_last"
    assert config.cache_folder() is None or config.cache_folder().is_absolute()


@pytest.mark.parametrize(
    ("variable", "text", "ask", "value"),
    [
        ("LAMINA_EXECUTOR", "reference", config.executor, "reference"),
        ("LAMINA_THREADS", "3", config.threads, 3),
        ("LAMINA_CPU", "AVX2", config.cpu, "avx2"),
        ("LAMINA_DUMP", "graph, asm", config.dump, {"graph", "asm"}),
        ("LAMINA_ARENA", "apart", config.arena, "apart"),
        ("LAMINA_CHECK", "bounds", config.check, "bounds"),
        ("LAMINA_CACHE", "off", config.cache_folder, None),
        ("LAMINA_DATA", "/data", config.data_folder, Path("/data")),
        ("LAMINA_FLOATX", "float64", config.floatx, "float64"),
        ("LAMINA_EPSILON", "1e-5", config.epsilon, 1e-5),
        ("LAMINA_IMAGE_DATA_FORMAT", "channels_first", config.image_data_format, "channels_first"),
    ],
)
def test_environment(monkeypatch, variable, text, ask, value):
    monkeypatch.setenv(variable, text)
    assert ask() == value


def test_the_environment_is_read_at_the_first_question_only(monkeypatch):
    monkeypatch.setenv("LAMINA_EXECUTOR", "reference")
    assert config.executor() == "reference"
    monkeypatch.setenv("LAMINA_EXECUTOR", "llvm")
    assert config.executor() == "reference"


def test_a_setter_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("LAMINA_THREADS", "3")
    config.set_threads(2)
    assert config.threads() == 2
    config.set_threads(None)
    assert config.threads() is None


def test_every_setting_has_a_setter(tmp_path):
    config.set_executor("reference")
    config.set_cache_folder(tmp_path)
    config.set_cpu("sse2")
    config.set_dump("plan,llvm")
    config.set_arena("apart")
    config.set_check("bounds")
    config.set_data_folder(tmp_path)
    config.set_floatx("bfloat16")
    config.set_epsilon(1e-3)
    config.set_image_data_format("channels_first")
    assert config.executor() == "reference" and config.cache_folder() == tmp_path
    assert config.cpu() == "sse2" and config.check() == "bounds"
    assert config.dump() == {"plan", "llvm"} and config.arena() == "apart"
    assert config.data_folder() == tmp_path and config.floatx() == "bfloat16"
    assert config.epsilon() == 1e-3 and config.image_data_format() == "channels_first"
    config.set_dump(None)
    assert config.dump() == frozenset()


def test_an_impossible_value_is_refused_and_changes_nothing():
    with pytest.raises(config.ConfigError) as caught:
        config.set_executor("lvm")
    assert str(caught.value) == (
        "config: executor cannot be 'lvm'.\n"
        "  expected llvm, reference\n"
        "  from     LAMINA_EXECUTOR or lamina.config\n"
        "  hint     Did you mean 'llvm'?"
    )
    assert config.executor() == "llvm"


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "many", "1000"])
def test_threads_must_be_a_count(monkeypatch, given):
    monkeypatch.setenv("LAMINA_THREADS", given)
    with pytest.raises(config.ConfigError, match=r"config: threads cannot be .*\n.*whole number"):
        config.threads()


@pytest.mark.parametrize("given", [0, -1e-7, float("nan"), float("inf"), "small"])
def test_epsilon_must_be_positive(given):
    with pytest.raises(config.ConfigError, match="a positive number"):
        config.set_epsilon(given)


def test_a_relative_cache_folder_is_refused():
    with pytest.raises(config.ConfigError, match="an absolute folder"):
        config.set_cache_folder("cache")


def test_override_gives_the_old_values_back():
    config.set_threads(2)
    with config.override(threads=1, executor="reference"):
        assert config.threads() == 1 and config.executor() == "reference"
        with pytest.raises(ZeroDivisionError), config.override(threads=5):
            raise ZeroDivisionError
        assert config.threads() == 1
    assert config.threads() == 2 and config.executor() == "llvm"


def test_override_refuses_before_it_sets():
    message = "there is no setting 'thread'. Did you mean 'threads'"
    with pytest.raises(config.ConfigError, match=message), config.override(thread=1):
        pass
    with pytest.raises(config.ConfigError), config.override(threads=3, executor="x"):
        pass
    assert config.threads() is None


def test_the_users_cache_follows_the_system(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config.cache_folder() == tmp_path / "lamina"
