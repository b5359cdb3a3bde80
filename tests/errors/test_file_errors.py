"""Files that are damaged, of another model, or made to do harm."""

import io
import json
import os
import zipfile

import h5py
import numpy as np
import pytest

import lamina
from lamina import layers, saving
from lamina.errors import FileFormatError


def net(units=2):
    return lamina.Sequential([lamina.Input((3,)), layers.Dense(units, name="classifier")])


def told(action, kind=Exception):
    with pytest.raises(kind) as raised:
        action()
    return str(raised.value)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.keras"
    net().save(path)
    return path


def rewritten(path, change):
    """The archive with its parts changed: `change(parts)`, a dict from name to bytes."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_missing_files(tmp_path):
    assert told(lambda: saving.load_model(tmp_path / "no.keras"), FileNotFoundError).startswith(
        "there is no file"
    )
    assert told(lambda: net().load_weights(tmp_path / "no.weights.h5"), FileNotFoundError)


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 1000, -1, -100])
def test_truncated_files(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[:kept])
    text = told(lambda: saving.load_model(saved), FileFormatError)
    assert "is no readable .keras file: it is damaged, truncated, or something else." in text


def test_any_flipped_byte_is_told_or_harmless(saved):
    content = saved.read_bytes()
    expected = saving.load_model(saved).get_weights()
    positions = np.random.default_rng(0).integers(0, len(content), 60)
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        saved.write_bytes(damaged)
        try:
            found = saving.load_model(saved).get_weights()
        except (FileFormatError, saving.UnknownObjectError, ValueError, TypeError, KeyError):
            continue
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_part_that_is_missing(saved):
    rewritten(saved, lambda parts: parts.pop("model.weights.h5"))
    text = told(lambda: saving.load_model(saved), FileFormatError)
    assert text == (
        f"{saved} holds no model.weights.h5, so it is no saved model.\n"
        "  holds    metadata.json, config.json"
    )


def test_json_that_is_none(saved):
    rewritten(saved, lambda parts: parts.update({"config.json": b'{"class_name": '}))
    assert "config.json in" in told(lambda: saving.load_model(saved), FileFormatError)
    rewritten(saved, lambda parts: parts.update({"config.json": b"[" * 100_000}))
    assert "is no readable JSON" in told(lambda: saving.load_model(saved), FileFormatError)
    rewritten(saved, lambda parts: parts.update({"config.json": b"[1, 2]"}))
    assert "describes no object" in told(lambda: saving.load_model(saved), FileFormatError)


def test_deep_nesting(saved):
    deep = json.dumps({"class_name": "Dense", "config": {}})
    for _ in range(300):
        deep = '{"a": ' + deep + "}"
    text = '{"class_name": "__tuple__", "config": {"value": [' + deep + "]}}"
    rewritten(saved, lambda parts: parts.update({"config.json": text.encode()}))
    assert "nested more than 200 deep" in told(lambda: saving.load_model(saved), FileFormatError)


def config_with(saved, **changes):
    def change(parts):
        config = json.loads(parts["config.json"])
        config["config"]["layers"][1].update(changes)
        parts["config.json"] = json.dumps(config).encode()

    rewritten(saved, change)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("lamina.models.model", "os"),
        ("keras.layers", "__import__"),
        ("keras.src.saving.serialization_lib", "enable_unsafe_deserialization"),
        ("lamina.serialization", "deserialize_keras_object"),
        ("subprocess", "Popen"),
        ("lamina.layers", "importlib"),
    ],
)
def test_nothing_but_known_classes_is_looked_up(saved, module, name):
    config_with(saved, module=module, class_name=name, registered_name=f"{module}>{name}")
    text = told(lambda: saving.load_model(saved))
    assert "unknown" in text or "the file holds" in text


def test_an_unknown_layer(saved):
    config_with(saved, module="my_code", class_name="MyLayer", registered_name="my>MyLayer")
    assert told(lambda: saving.load_model(saved), TypeError) == (
        "unknown class 'MyLayer'.\n"
        "  registered my>MyLayer\n"
        "  hint     if it is yours, pass custom_objects={'MyLayer': MyLayer} or decorate it with "
        "@lamina.saving.register_keras_serializable()"
    )
    config_with(saved, module="keras.layers", class_name="Dnse", registered_name=None)
    assert "unknown class 'Dnse'. Did you mean 'Dense'" in told(lambda: saving.load_model(saved))


def test_code_in_a_file_is_never_run(saved):
    code = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}
    config_with(
        saved, module="keras.layers", class_name="Lambda", config={"name": "f", "function": code}
    )
    for safe in (True, False):
        text = told(lambda safe=safe: saving.load_model(saved, safe_mode=safe))
        assert "the file holds the code of a lambda, which lamina never runs." in text


def test_files_named_in_a_file_are_not_read(saved, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("one\ntwo\n")
    config_with(
        saved,
        module="keras.layers",
        class_name="StringLookup",
        config={"name": "words", "vocabulary": str(secret)},
    )
    assert told(lambda: saving.load_model(saved), FileFormatError) == (
        "StringLookup: the file names another file to take the vocabulary from, which lamina does "
        "not read.\n"
        "  hint     make the layer with the vocabulary itself, and save the model again"
    )


def test_a_decompression_bomb(saved):
    with zipfile.ZipFile(saved) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(80):
                member.write(bytes(1 << 20))
    text = told(lambda: saving.load_model(saved))
    assert "is no readable HDF5 file" in text or "claims" in text


def weights_with(path, change):
    net().save_weights(path)
    with h5py.File(path, "r+") as file:
        change(file)


def test_weights_of_another_model(tmp_path):
    path = tmp_path / "w.weights.h5"
    net(2).save_weights(path)
    model = net(5)
    before = model.get_weights()
    assert told(lambda: model.load_weights(path), ValueError) == (
        "the weights do not fit this model: layers/dense.\n"
        "  dense    this model has (3, 5), (5,), the file (3, 2), (2,)\n"
        "  in file  dense\n"
        "  hint     load them into a model of the same layers in the same order, "
        "or pass skip_mismatch=True"
    )
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mismatch_changes_no_layer(tmp_path):
    def make(units):
        return lamina.Sequential([lamina.Input((3,)), layers.Dense(4), layers.Dense(units)])

    path = tmp_path / "w.weights.h5"
    make(2).save_weights(path)
    model = make(3)
    before = model.get_weights()
    told(lambda: model.load_weights(path), ValueError)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_are_links(tmp_path):
    path, secret = tmp_path / "w.weights.h5", tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.zeros((3, 2), np.float32)

    def link(file):
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(secret), "data")

    weights_with(path, link)
    text = told(lambda: net().load_weights(path), FileFormatError)
    assert text == "layers/dense/0 is a link, which a weights file may not hold."

    def soft(file):
        group = file["layers/dense/vars"]
        del group["0"]
        group["0"] = h5py.SoftLink("/layers/dense/vars/1")

    weights_with(path, soft)
    assert "is a link" in told(lambda: net().load_weights(path), FileFormatError)


def test_weights_in_other_files(tmp_path):
    path, raw = tmp_path / "w.weights.h5", tmp_path / "raw.bin"
    raw.write_bytes(bytes(24))

    def external(file):
        group = file["layers/dense/vars"]
        del group["0"]
        group.create_dataset("0", (3, 2), "f4", external=[(str(raw), 0, 24)])

    weights_with(path, external)
    assert "refers to another file" in told(lambda: net().load_weights(path), FileFormatError)


def test_weights_that_unfold_to_too_much(tmp_path):
    path = tmp_path / "w.weights.h5"

    def huge(file):
        group = file["layers/dense/vars"]
        del group["0"]
        group.create_dataset("0", (1 << 20, 1 << 12), "f4", chunks=(1 << 10, 1 << 10))

    weights_with(path, huge)
    assert "claims 17,179,869,184 bytes, but only 0 are stored" in told(
        lambda: net().load_weights(path), FileFormatError
    )


def test_weights_that_are_no_hdf5(tmp_path):
    path = tmp_path / "w.weights.h5"
    path.write_bytes(b"not a file of weights")
    assert "is no readable HDF5 file" in told(lambda: net().load_weights(path), FileFormatError)
    net().save_weights(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    told(lambda: net().load_weights(path), FileFormatError)


def test_endings():
    model = net()
    assert told(lambda: model.save("m.h5")) == (
        "save: the filename must end in .keras, got 'm.h5'.\n"
        "  hint     save_weights() writes .weights.h5"
    )
    assert told(lambda: model.save("m.h5", zipped=False)) == (
        "save: a folder's name must not end like a file, got 'm.h5'."
    )
    assert told(lambda: model.save_weights("w.npz")) == (
        "save_weights: the filename must end in .weights.h5, got 'w.npz'."
    )
    assert told(lambda: model.load_weights("w.npz")) == (
        "load_weights: expected a .weights.h5 or .keras file, got 'w.npz'."
    )


def test_files_of_keras_2(tmp_path):
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
    assert told(lambda: saving.load_model(path)) == (
        f"{path} is in the format of Keras 2, which lamina does not read.\n"
        "  hint     load it with Keras and save it again as .keras"
    )


def test_existing_files_and_missing_folders(tmp_path, saved):
    model = net()
    assert told(lambda: model.save(saved, overwrite=False), FileExistsError) == (
        f"{saved} exists, and overwrite=False."
    )
    assert told(lambda: model.save(tmp_path / "no" / "m.keras"), FileNotFoundError) == (
        f"the folder {tmp_path / 'no'} does not exist."
    )
    (tmp_path / "folder.keras").mkdir()
    assert "is an existing folder" in told(lambda: model.save(tmp_path / "folder.keras"))


def test_models_without_weights(tmp_path):
    model = lamina.Sequential([layers.Dense(2)], name="chain")
    assert told(lambda: model.save_weights(tmp_path / "w.weights.h5")) == (
        "save_weights: chain has no weights yet.\n"
        "  hint     call it on a batch of data, or give it an Input, first"
    )


def test_rights_of_a_new_file(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~mask


def test_bytes_in_memory_are_not_confused_with_a_path():
    buffer = io.BytesIO(b"x")
    with pytest.raises(TypeError):
        saving.load_model(buffer)
