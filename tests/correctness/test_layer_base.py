"""The base layer: building, naming, tracking, masks, losses, configuration, symbolic calls."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

from lamina import layers, naming, ops
from lamina.errors import DtypeError, LaminaError, ShapeError, TraceError
from lamina.layers import Dense, Input, InputSpec, KerasTensor, Layer
from lamina.reference import compile_reference
from lamina.tensor import Tensor, Variable, convert
from lamina.trace import trace
from lamina.types import Batch, Type

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def _fresh_names():
    naming.reset_unique_names()


class Scale(Layer):
    """One weight for each feature, and a count of the calls."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape):
        self.shape_seen = input_shape
        self.factor = self.add_weight(
            shape=input_shape[-1:],
            initializer=lambda shape, dtype: np.full(shape, self.start, dtype),
            name="factor",
        )
        self.calls = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="calls"
        )

    def call(self, inputs):
        self.calls.assign_add(1)
        return inputs * self.factor


class Block(Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stages = [Scale(), Scale()]
        self.named = {"last": Dense(2)}

    def call(self, inputs, training=False):
        for stage in self.stages:
            inputs = stage(inputs)
        return self.named["last"](inputs)


def test_the_first_call_builds():
    layer = Scale(2.0)
    assert not layer.built
    assert layer.weights == []
    assert layer(X).tolist() == (X * 2).tolist()
    assert layer.built
    assert layer.shape_seen == (None, 3)
    assert int(layer.calls.numpy()) == 1
    layer(X)
    assert int(layer.calls.numpy()) == 2


def test_names_are_counted():
    assert [Dense(1).name for _ in range(3)] == ["dense", "dense_1", "dense_2"]
    assert Block().name == "block"
    assert Dense(1, name="mine").name == "mine"
    with pytest.raises(ValueError, match="without '/'"):
        Dense(1, name="a/b")


def test_weights_carry_the_path_of_their_layers():
    block = Block(name="outer")
    block(X)
    assert [w.path for w in block.weights] == [
        "outer/scale/factor",
        "outer/scale/calls",
        "outer/scale_1/factor",
        "outer/scale_1/calls",
        "outer/dense/kernel",
        "outer/dense/bias",
    ]
    alone = Dense(2, name="head")
    alone.build((None, 3))
    assert [w.path for w in alone.weights] == ["head/kernel", "head/bias"]


def test_nodes_carry_the_path_of_their_layers():
    block = Block(name="outer")
    traced = trace(block, Type((Batch(1), 3)))
    scopes = {node.scope for node in traced.program.nodes()}
    assert "outer/scale_1" in scopes
    assert "outer/dense" in scopes


def test_trainable_weights_come_first_in_each_layer():
    class Mixed(Layer):
        def build(self, input_shape):
            self.a = self.add_weight(shape=(), trainable=False, name="a")
            self.b = self.add_weight(shape=(), name="b")
            self.c = Variable(1.0, name="c")

        def call(self, inputs):
            return inputs

    layer = Mixed()
    layer(X)
    assert [w.name for w in layer.weights] == ["b", "c", "a"]
    assert [w.name for w in layer.trainable_weights] == ["b", "c"]
    assert [w.name for w in layer.non_trainable_weights] == ["a"]


def test_layers_appended_later_are_found():
    block = Block()
    block(X)
    before = len(block.weights)
    block.stages.append(Scale())
    block(X)
    assert len(block.weights) == before + 2
    block.more = ({"deep": [Dense(1)]},)
    block.more[0]["deep"][0].build((None, 4))
    assert len(block.weights) == before + 4
    del block.more
    assert len(block.weights) == before + 2


def test_shared_layers_count_once():
    class Twice(Layer):
        def __init__(self):
            super().__init__()
            self.one = self.other = Dense(3)

        def call(self, x):
            return self.other(self.one(x))

    layer = Twice()
    layer(X)
    assert len(layer.weights) == 2
    assert layer.count_params() == 12


def test_freezing_reaches_the_layers_inside_and_back():
    block = Block()
    block(X)
    block.trainable = False
    assert block.trainable_weights == []
    assert len(block.non_trainable_weights) == 6
    assert not block.named["last"].trainable
    block.trainable = True
    assert [w.name for w in block.trainable_weights] == ["factor", "factor", "kernel", "bias"]
    block.stages[0].trainable = False
    assert len(block.trainable_weights) == 3


def test_a_frozen_layer_builds_frozen_weights():
    layer = Dense(2, trainable=False)
    layer(X)
    assert layer.trainable_weights == []
    layer.trainable = True
    assert len(layer.trainable_weights) == 2


def test_set_weights_is_all_or_nothing():
    layer = Dense(2)
    layer(X)
    before = layer.get_weights()
    with pytest.raises(ShapeError, match=r"weight dense/bias has shape \(2,\), got \(3,\)"):
        layer.set_weights([np.zeros((3, 2)), np.zeros(3)])
    with pytest.raises(ShapeError, match="has 2 weights, got 1 arrays"):
        layer.set_weights([np.zeros((3, 2))])
    assert (layer.get_weights()[0] == before[0]).all()
    layer.set_weights([np.ones((3, 2)), np.ones(2)])
    assert layer(X).tolist() == [[4.0, 4.0], [13.0, 13.0]]
    with pytest.raises(ShapeError, match="not built yet"):
        Dense(2).set_weights(before)


def test_default_initializers():
    layer = Dense(2)
    layer.build((None, 3))
    assert layer.add_weight((2, 2), dtype="int32").numpy().tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ShapeError, match="needs known sizes"):
        layer.add_weight((None, 2))


# ------------------------------------------------------------------------ arguments of calls


def test_training_is_inherited_from_the_outermost_call():
    seen = []

    class Inner(Layer):
        def call(self, x, training=None):
            seen.append(training)
            return x

    class Middle(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def call(self, x):
            return self.inner(x)

    class Forced(Middle):
        def call(self, x):
            return self.inner(x, training=False)

    middle, forced = Middle(), Forced()
    for layer in (middle, forced):
        layer(X)
        layer(X, training=True)
        layer(X, training=False)
    assert seen == [False, True, False, False, False, False]
    Inner()(X, True)
    assert seen[-1] is True


def test_the_default_of_call_counts_where_nobody_says():
    class Eager(Layer):
        def call(self, x, training=True):
            return x * (2.0 if training else 1.0)

    assert Eager()(X).tolist() == (X * 2).tolist()
    assert Eager()(X, training=False).tolist() == X.tolist()


def test_arrays_become_tensors_of_the_compute_dtype():
    seen = []

    class Look(Layer):
        def call(self, a, b=None, flag="text"):
            seen.append((a, b, flag))
            return a

    Look()(X.astype(np.float64), b=[np.arange(2), None], flag="other")
    a, b, flag = seen[0]
    assert isinstance(a, Tensor)
    assert a.dtype == "float32"
    assert b[0].dtype == "int64"
    assert b[1] is None
    assert flag == "other"
    Look(dtype="float64")(X)
    assert seen[1][0].dtype == "float64"


def test_lists_of_numbers_are_arrays():
    assert Scale(2.0)([[1, 2.5], [3, 4]]).tolist() == [[2.0, 5.0], [6.0, 8.0]]


def test_mixed_precision_computes_in_half_and_keeps_float32():
    layer = Dense(2, dtype="mixed_bfloat16")
    y = layer(X)
    assert y.dtype == "bfloat16"
    assert layer.kernel.dtype == "float32"
    assert layer.dtype_policy.name == "mixed_bfloat16"
    assert Dense(2, dtype="float64")(X).dtype == "float64"
    with pytest.raises(DtypeError, match="unknown dtype policy 'mixed_int8'"):
        Dense(2, dtype="mixed_int8")


def test_several_inputs_build_by_name():
    class Pair(Layer):
        def build(self, left_shape, right_shape):
            self.seen = (left_shape, right_shape)

        def call(self, left, right):
            return left + ops.sum(right, -1, keepdims=True)

    class Listed(Layer):
        def build(self, input_shape):
            self.seen = input_shape

        def call(self, inputs):
            return inputs[0]

    pair, listed = Pair(), Listed()
    pair(X, right=np.ones((2, 5), np.float32))
    assert pair.seen == ((None, 3), (None, 5))
    listed([X, np.ones((2, 5), np.float32)])
    assert listed.seen == [(None, 3), (None, 5)]


# ------------------------------------------------------------------------ input checks


def test_a_wrong_number_of_features_is_explained():
    layer = Dense(2, name="classifier")
    layer(np.ones((4, 784), np.float32))
    with pytest.raises(ShapeError) as caught:
        layer(np.ones((32, 28, 28), np.float32))
    lines = str(caught.value).splitlines()
    assert lines[0] == "classifier: expected 784 features on the last axis, got 28."
    assert lines[1] == "  inputs   float32 (32, 28, 28)"
    assert lines[2].startswith("  kernel   float32 (784, 2), built")
    assert lines[3].startswith("  at       test_layer_base.py:")
    assert "layer(np.ones((32, 28, 28), np.float32))" in lines[3]
    assert "add Flatten() before" in lines[4]
    assert layer(np.ones((4, 784), np.float32)).shape == (4, 2), "the layer stays usable"


@pytest.mark.parametrize(
    ("spec", "shape", "text"),
    [
        (InputSpec(ndim=4), (2, 3, 4), "expected 4 axes, got 3"),
        (InputSpec(min_ndim=3), (2, 3), "expected at least 3 axes, got 2"),
        (InputSpec(max_ndim=2), (2, 3, 4), "expected at most 2 axes, got 3"),
        (InputSpec(axes={1: 7}), (2, 3, 4), "expected size 7 on axis 1, got 3"),
        (InputSpec(shape=(None, 5)), (2, 3), r"expected the shape \(None, 5\), got "),
        (InputSpec(dtype="int32"), (2, 3), "expected int32, got float32"),
    ],
)
def test_input_specifications(spec, shape, text):
    layer = layers.Identity(name="spec")
    layer.input_spec = spec
    with pytest.raises(ShapeError, match=text):
        layer(np.ones(shape, np.float32))
    with pytest.raises(ShapeError, match=text):
        layer(Input(shape[1:]))


def test_errors_inside_a_layer_say_where():
    class Broken(Layer):
        def call(self, x):
            return x + np.ones(7, np.float32)

    with pytest.raises(ShapeError) as caught:
        Broken(name="adder")(X)
    assert caught.value.__notes__ == ["  in       adder (Broken), given float32 (2, 3)"]


def test_forgetting_super_is_explained():
    class Careless(Layer):
        def __init__(self):
            self.inner = Dense(2)

        def call(self, x):
            return self.inner(x)

    with pytest.raises(LaminaError, match=r"Careless: super\(\).__init__\(\) must be called"):
        Careless()(X)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="Dense: unknown arguments 'unit'"):
        Dense(2, unit=3)
    with pytest.raises(NotImplementedError, match=r"Layer has no call\(\)"):
        Layer()(X)


# ------------------------------------------------------------------------ losses


def test_losses_of_calls_and_weights():
    layer = Dense(2, kernel_regularizer="l2", activity_regularizer="l1", use_bias=False)
    layer.build((None, 3))
    layer.set_weights([np.ones((3, 2))])
    layer(X)
    activity, weight = layer.losses
    np.testing.assert_allclose(float(activity), 0.01 * (6 + 24) / 2, rtol=1e-6)
    np.testing.assert_allclose(float(weight), 0.01 * 6, rtol=1e-6)
    layer(X)
    assert len(layer.losses) == 2, "an outermost call begins anew"
    layer.trainable = False
    assert len(layer.losses) == 1


def test_losses_of_a_trace_stay_in_it():
    class Adds(Layer):
        def call(self, x):
            self.add_loss(ops.mean(x))
            return x

    layer = Adds()
    layer(X)
    assert [float(loss) for loss in layer.losses] == [2.5]

    def step(x):
        layer(x)
        layer(x * 2.0)
        return layer.losses

    traced = trace(step, Type((Batch(1), 3)))
    found = compile_reference(traced.program, 4)([X], traced.states())
    assert [float(loss) for loss in found] == [2.5, 5.0]
    assert layer.losses == []


# ------------------------------------------------------------------------ masks


def test_masks_travel_with_tensors():
    x = np.float32([[[1, 2], [0, 0]], [[3, 4], [5, 6]]])
    masked = layers.Masking()(x)
    assert masked._keras_mask.tolist() == [[True, False], [True, True]]
    y = layers.Activation("relu")(Dense(3)(masked))
    assert y._keras_mask.tolist() == [[True, False], [True, True]]


def test_a_layer_that_takes_a_mask_gets_it():
    seen = []

    class Reads(Layer):
        supports_masking = True

        def call(self, x, mask=None):
            seen.append(mask)
            return x

    layer = Reads()
    layer(layers.Masking()(np.ones((1, 2, 2), np.float32)))
    assert seen[0].tolist() == [[True, True]]
    layer(np.ones((1, 2, 2), np.float32))
    assert seen[1] is None
    layer(np.ones((1, 2, 2), np.float32), mask=np.array([[True, False]]))
    assert seen[2].tolist() == [[True, False]]


def test_a_layer_without_support_ends_the_mask_and_warns():
    class Plain(Layer):
        def call(self, x):
            return x * 1.0

    with pytest.warns(UserWarning, match="does not support masks"):
        y = Plain()(layers.Masking()(np.ones((1, 2, 2), np.float32)))
    assert getattr(y, "_keras_mask", None) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Plain()(np.ones((1, 2, 2), np.float32))


# ------------------------------------------------------------------------ symbolic calls


def test_symbolic_calls_record_nodes():
    x = Input((28, 28), name="images")
    hidden = Dense(4)(layers.Flatten()(x))
    y = ops.softmax(hidden * 2.0 + 1.0, axis=-1)
    assert (x.shape, hidden.shape, y.shape) == ((None, 28, 28), (None, 4), (None, 4))
    operation, node_index, tensor_index = y._keras_history
    assert (operation.name, node_index, tensor_index) == ("softmax", 0, 0)
    path = []
    node = operation._inbound_nodes[node_index]
    while node.parent_nodes:
        path.append(node.operation.name)
        (node,) = node.parent_nodes
    assert path == ["softmax", "add", "multiply", "dense", "flatten"]
    assert node.is_input
    assert node.operation.name == "images"


def test_symbolic_calls_build_but_compute_nothing():
    layer = Scale()
    y = layer(Input((3,)))
    assert y.shape == (None, 3)
    assert layer.built
    assert int(layer.calls.numpy()) == 0
    assert layer.input.shape == (None, 3)
    assert layer.output is y
    layer(Input((3,)))
    with pytest.raises(ValueError, match="called on symbolic tensors 2 times"):
        _ = layer.input


def test_a_node_fills_its_arguments():
    a, b = Input((3,)), Input((3,))
    y = layers.Add()([a, b])
    node = y._keras_history.operation._inbound_nodes[0]
    args, kwargs = node.fill({id(a): 1, id(b): 2})
    assert (args, kwargs) == (([1, 2],), {})


@pytest.mark.parametrize(
    ("make", "given", "expected"),
    [
        (Dense(4), (None, 8), (None, None, 4)),
        (lambda x: ops.mean(x, axis=1), (None, 8), (None, 8)),
        (lambda x: ops.reshape(x, (-1, 8)), (None, 8), (None, 8)),
        (layers.Reshape((-1, 4)), (None, 8), (None, None, 4)),
        (lambda x: x[:, 0], (None, 8), (None, 8)),
        (lambda x: ops.concatenate([x, x], axis=1), (None, 8), (None, None, 8)),
        (lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), (None, 8), (None, None, None)),
        (layers.UpSampling2D(), (None, None, 3), (None, None, None, 3)),
        (layers.Flatten(), (4, 8), (None, 32)),
        (lambda x: ops.top_k(x, 2)[1], (4, 8), (None, 4, 2)),
        (lambda x: ops.sum(ops.flip(x, 0), 0), (8,), (8,)),
        (lambda x: ops.map(lambda row: ops.sum(row, -1), x), (4, 8), (None, 4)),
        (lambda x: ops.fori_loop(0, 3, lambda i, v: v * 2.0, x), (8,), (None, 8)),
    ],
)
def test_shapes_of_symbolic_calls(make, given, expected):
    y = make(Input(given))
    assert isinstance(y, KerasTensor)
    assert y.shape == expected


def test_shapes_of_code_that_looks_at_values():
    class Looks(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Scale()

        def call(self, x):
            if float(ops.mean(self.inner(x))) > -1.0 and float(self.inner.factor[0]) == 1.0:
                return ops.concatenate([x, x], axis=-1)
            return x

    layer = Looks()
    assert layer(Input((None, 3))).shape == (None, None, 6)
    assert int(layer.inner.calls.numpy()) == 0
    with pytest.raises(TraceError, match="known only when the step runs"):
        trace(layer, Type((Batch(1), 2, 3)))


def test_structures_of_symbolic_outputs():
    class Splits(Layer):
        def call(self, x, extra=None):
            return {"left": x[:, :1], "right": (x[:, 1:], extra)}

    found = Splits()(Input((3,)), extra=Input((2, 2)))
    assert found["left"].shape == (None, 1)
    assert found["right"][0].shape == (None, 2)
    assert found["right"][1].shape == (None, 2, 2)


def test_symbolic_tensors_have_no_value():
    x = Input((3,))
    for use in (bool, float, len, np.asarray, lambda t: t.numpy()):
        with pytest.raises(TraceError, match="has no value"):
            use(x)
    with pytest.raises(DtypeError, match="symbolic tensor"):
        convert(x)


def test_operators_of_symbolic_tensors():
    x = Input((3,))
    t = convert([1.0, 2.0, 3.0])
    for y in (
        x + 1,
        1 - x,
        x * t,
        t * x,
        x / 2,
        x // 2,
        x % 2,
        x**2,
        2**x,
        -x,
        abs(x),
        x @ t[:, None],
    ):
        assert isinstance(y, KerasTensor)
    assert (x > 0).dtype == "bool"
    assert (~(x > 0) & (x < 1) | (x >= 2)).dtype == "bool"
    assert x.astype("int32").dtype == "int32"
    assert (x @ t[:, None]).shape == (None, 1)


def test_inputs():
    assert Input((3,), batch_size=7).shape == (7, 3)
    assert Input(batch_shape=(None, 2, 3)).shape == (None, 2, 3)
    assert Input(()).shape == (None,)
    assert Input((3,), dtype="int32").dtype == "int32"
    config = layers.InputLayer(shape=(3,), name="x").get_config()
    assert layers.InputLayer.from_config(config).batch_shape == (None, 3)
    with pytest.raises(ValueError, match="needs a shape"):
        Input()
    with pytest.raises(ValueError, match="not both"):
        Input((3,), batch_shape=(None, 3))


def test_compute_output_shape_without_a_record():
    layer = Block()
    assert layer.compute_output_shape((None, 3)) == (None, 2)
    assert layer.built
    assert layer._inbound_nodes == []
    assert Dense(5).compute_output_shape((None, 2, 3)) == (None, 2, 5)


def test_build_without_a_call_builds_the_layers_inside():
    block = Block()
    block.build((None, 3))
    assert len(block.weights) == 6
    assert all(layer.built for layer in block._flatten_layers())


# ------------------------------------------------------------------------ configuration


def test_configuration_round_trip():
    layer = Dense(3, activation="relu", kernel_regularizer="l2", name="head", dtype="float64")
    twin = Dense.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert twin.name == "head"
    assert twin.dtype == "float64"


def test_options_of_keras_that_are_off_are_no_obstacle():
    config = {**Dense(3).get_config(), "lora_rank": None, "quantization_config": None}
    assert Dense.from_config(config).units == 3
    with pytest.raises(TypeError, match="Dense cannot be made from its configuration"):
        Dense.from_config({**config, "lora_rank": 4})


def test_configuration_of_a_layer_that_does_not_write_one():
    class Plain(Layer):
        def __init__(self, units, options=None, **kwargs):
            super().__init__(**kwargs)

    config = Plain(3, options={"a": [1, 2]}, name="p").get_config()
    assert (config["units"], config["options"], config["name"]) == (3, {"a": [1, 2]}, "p")
    assert Plain.from_config(config).name == "p"
    with pytest.raises(NotImplementedError, match="takes 'units', which is no plain data"):
        Plain(object()).get_config()


def test_build_configuration():
    layer = Dense(3)
    layer(X)
    assert layer.get_build_config() == {"input_shape": (None, 3)}
    twin = Dense(3)
    twin.build_from_config({"input_shape": [None, 3]})
    assert twin.kernel.shape == (3, 3)


def test_own_variables_are_saved_by_number():
    layer, twin = Scale(3.0), Scale()
    layer(X)
    store: dict[str, np.ndarray] = {}
    layer.save_own_variables(store)
    assert sorted(store) == ["0", "1"]
    with pytest.raises(ShapeError, match="the layer is not built"):
        twin.load_own_variables(store)
    twin(X)
    twin.load_own_variables(store)
    assert twin.factor.numpy().tolist() == [3, 3, 3]


def test_layers_copy_and_pickle():
    block = Block()
    before = block(X).numpy()
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(Dense(2)))):
        assert twin(X).shape == (2, 2)
    twin = copy.deepcopy(block)
    twin.set_weights([np.zeros(w.shape) for w in twin.weights])
    assert (block(X).numpy() == before).all()
    assert (twin(X).numpy() == 0).all()


def test_layers_are_called_from_several_threads():
    block = Block()
    block.build((None, 3))
    expected = block(X).numpy()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(block(X, training=True).numpy()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 4
    for result in results:
        np.testing.assert_allclose(result, expected)


def test_unknown_layers_suggest_known_ones():
    with pytest.raises(AttributeError, match="Did you mean 'Dense'"):
        _ = layers.Dence
    assert "Dense" in dir(layers)
