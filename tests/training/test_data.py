"""Sources of batches: orders, lengths, splits and weights."""

import numpy as np
import pytest

from lamina.data import (
    ArraySource,
    BatchSource,
    PyDataset,
    sample_weights_of_classes,
    source_of,
    train_validation_split,
    unpack_data,
)


def test_batches_are_counted_with_the_short_last_one():
    source = ArraySource(np.zeros((10, 3)), np.zeros(10), batch_size=4)
    assert (source.rows, source.batches, source.steps) == (10, 3, 3)


def test_batch_size_is_32_or_follows_from_the_steps():
    assert ArraySource(np.zeros((100, 2))).batch_size == 32
    assert ArraySource(np.zeros((100, 2)), steps=7).batch_size == 15


def test_order_is_numpys_global_permutation():
    source = ArraySource(np.zeros((50, 2)), shuffle=True)
    np.random.seed(3)
    ours = source.order()
    np.random.seed(3)
    np.testing.assert_array_equal(ours, np.random.permutation(50))
    assert ours.dtype == np.int64


def test_batch_shuffle_stays_within_the_batches():
    order = ArraySource(np.zeros((10, 2)), batch_size=4, shuffle="batch").order()
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert sorted(order[4:8]) == [4, 5, 6, 7]
    assert sorted(order[8:]) == [8, 9]


def test_arrays_are_not_copied():
    x = np.zeros((10, 3), np.float32)
    assert ArraySource(x).leaves[0] is x


def test_other_orders_in_memory_become_contiguous():
    x = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    leaf = ArraySource(x).leaves[0]
    assert leaf.flags.c_contiguous
    np.testing.assert_array_equal(leaf, x)
    swapped = x.astype(">f4")
    assert ArraySource(swapped).leaves[0].dtype.isnative


def test_split_takes_the_last_samples():
    x, y = np.arange(10.0), np.arange(10)
    (train_x, train_y, _), (x_val, y_val, _) = train_validation_split((x, y, None), 0.25)
    np.testing.assert_array_equal(train_x, np.arange(7.0))
    np.testing.assert_array_equal(x_val, [7, 8, 9])
    np.testing.assert_array_equal(y_val, [7, 8, 9])
    assert len(train_y) == 7


def test_class_weights_by_number_and_one_hot():
    labels = np.array([0, 2, 1, 0])
    expected = [0.5, 3.0, 1.0, 0.5]
    weights = {0: 0.5, 2: 3.0}
    np.testing.assert_array_equal(sample_weights_of_classes(labels, weights), expected)
    np.testing.assert_array_equal(sample_weights_of_classes(labels[:, None], weights), expected)
    np.testing.assert_array_equal(sample_weights_of_classes(np.eye(3)[labels], weights), expected)


def test_nested_data_keeps_its_nesting():
    source = ArraySource({"b": np.zeros((4, 1)), "a": [np.ones((4, 2))]}, (np.zeros(4), None))
    x, y = source.template
    assert set(x) == {"a", "b"}
    assert y[1] is None
    assert source.rows == 4


def test_data_frames_and_tensors_of_others_are_arrays():
    class Torchlike:
        shape = (3,)

        def detach(self):
            return self

        def cpu(self):
            return self

        def numpy(self):
            return np.arange(3)

    class Wrapper:
        shape = (3, 2)

        def to_numpy(self):
            return np.ones((3, 2))

    source = ArraySource(Wrapper(), Torchlike())
    np.testing.assert_array_equal(source.leaves[1], [0, 1, 2])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1,), (1, None, None)),
        ((1, 2), (1, 2, None)),
        ([1, 2, 3], (1, 2, 3)),
        (7, (7, None, None)),
        ({"a": 1}, ({"a": 1}, None, None)),
    ],
)
def test_unpack(given, expected):
    assert unpack_data(given) == expected


class Numbers(PyDataset):
    def __init__(self, count, **options):
        super().__init__(**options)
        self.count = count
        self.seen = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.seen.append(index)
        return np.full((2, 1), index), np.full(2, index)


@pytest.mark.parametrize("workers", [1, 3])
def test_dataset_keeps_its_order_with_workers(workers):
    source = BatchSource(Numbers(20, workers=workers, max_queue_size=4))
    assert source.steps == 20
    assert [int(x[0, 0]) for x, _ in source.epoch()] == list(range(20))


def test_dataset_is_shuffled_by_numpys_global_generator():
    source = BatchSource(Numbers(8), shuffle=True)
    np.random.seed(5)
    ours = [int(x[0, 0]) for x, _ in source.epoch()]
    np.random.seed(5)
    assert ours == list(np.random.permutation(8))


def test_first_batch_is_not_lost():
    def batches():
        for index in range(3):
            yield np.full((2, 1), index), np.zeros(2)

    source = BatchSource(batches())
    assert source.first_batch()[0][0, 0] == 0
    assert [int(x[0, 0]) for x, _ in source.epoch()] == [0, 1, 2]


def test_epochs_of_given_length_continue():
    def forever():
        index = 0
        while True:
            yield np.full((1, 1), index), np.zeros(1)
            index += 1

    source = BatchSource(forever(), steps=3)
    assert [int(x[0, 0]) for x, _ in source.epoch()] == [0, 1, 2]
    assert [int(x[0, 0]) for x, _ in source.epoch()] == [3, 4, 5]


def test_sized_data_is_walked_again():
    class Loader:
        def __len__(self):
            return 2

        def __iter__(self):
            return iter([(np.zeros((1, 1)), np.zeros(1)), (np.ones((1, 1)), np.ones(1))])

    source = BatchSource(Loader())
    assert source.steps == 2
    for _ in range(2):
        assert [float(x[0, 0]) for x, _ in source.epoch()] == [0.0, 1.0]


def test_running_out_warns():
    source = BatchSource(iter([(np.zeros((1, 1)), np.zeros(1))]), steps=3)
    with pytest.warns(UserWarning, match="ran out of data"):
        assert len(list(source.epoch())) == 1


def test_generators_may_yield_lists_of_numbers():
    source = source_of(iter([(np.zeros((2, 1)), [1, 0])]))
    ((x, y),) = source.epoch()
    np.testing.assert_array_equal(y, [1, 0])
    assert x.shape == (2, 1)
