"""The images of many classes: halved within each class, groups whole, and what cannot be used."""
import h5py
import numpy as np
import pytest

from hpclcae.data.classes import ClassSplit
from hpclcae.data.dataset import Dataset
from hpclcae.data.writer import DatasetWriter
from hpclcae.data.halves import halves_of_images
from hpclcae.utils.errors import InputError


def write(path, labels, groups=None, names=None, half_seed=0):
    labels = np.asarray(labels)
    groups = np.arange(labels.size) if groups is None else groups
    names = names or [f"class {i}" for i in range(labels.max() + 1)]
    with DatasetWriter(path, 4, 1, names) as writer:
        for i, (label, group) in enumerate(zip(labels, groups)):
            writer.append(np.full((4, 4, 1), i % 256, np.uint8), source=f"s/{i}",
                          group=f"s/{group}", original=(4, 4), crop=(0, 0, 4, 4), label=int(label))
        writer.half_seed = half_seed
    return path


def split(path, *arguments, **options):
    with Dataset(path) as dataset:
        return ClassSplit.of(dataset, *arguments, **options)


def test_each_class_is_halved_and_no_group_is_divided():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200, 2000)
    labels = groups % 7 - 1
    half = halves_of_images(groups.astype(str), labels)
    assert all(len(set(half[groups == group])) == 1 for group in np.unique(groups))
    for label in range(-1, 6):
        own = half[labels == label]
        assert abs(own.mean() - 0.5) < 0.03
    assert (halves_of_images(groups.astype(str), labels, 1) != half).any()
    alone = labels == 2  # a class does not depend on the others
    np.testing.assert_array_equal(halves_of_images(groups[alone].astype(str), labels[alone]),
                                  half[alone])


def test_groups_of_different_sizes_balance_and_of_several_classes_stay_whole():
    groups = np.repeat(np.arange(20), np.arange(1, 21))
    half = halves_of_images(groups.astype(str), np.zeros(groups.size, int))
    assert abs(int((half == 1).sum()) - int((half == 0).sum())) <= 20
    mixed = halves_of_images(np.array(["a", "a", "a", "b"]), np.array([0, 1, 1, 1]))
    assert len(set(mixed[:3])) == 1 and mixed[3] != mixed[0]


def test_three_parts_that_share_no_group(tmp_path):
    groups = np.arange(600) // 3
    path = write(tmp_path / "a.h5", groups % 10, groups)
    parts = split(path, validation=0.2)
    assert parts.counts.tolist() == [[24, 6, 30]] * 10
    owners = [set(groups[part]) for part in (parts.train, parts.validation, parts.test)]
    assert not owners[0] & owners[1] and not owners[2] & (owners[0] | owners[1])
    assert sum(map(len, owners)) == 200
    other = split(path, validation=0.2, seed=1)
    assert not np.array_equal(other.validation, parts.validation)
    np.testing.assert_array_equal(other.test, parts.test)
    assert split(path, validation=0).counts.tolist() == [[30, 0, 30]] * 10


def test_fewer_labels_are_among_more_and_leave_the_rest_alone(tmp_path):
    path = write(tmp_path / "a.h5", np.arange(200) % 4)
    parts = [split(path, per_class=count) for count in (1, 2, 10, 1000)]
    assert [part.counts[:, 0].tolist() for part in parts] == [[1] * 4, [2] * 4, [10] * 4, [23] * 4]
    for few, more in zip(parts, parts[1:]):
        assert set(few.train) < set(more.train)
        np.testing.assert_array_equal(few.test, more.test)
        np.testing.assert_array_equal(few.validation, more.validation)


def test_what_is_unknown_is_in_no_part(tmp_path):
    labels = np.r_[np.arange(40) % 2, -np.ones(10, int)]
    parts = split(write(tmp_path / "a.h5", labels))
    assert parts.counts.sum() == 40
    assert max(parts.train.max(), parts.validation.max(), parts.test.max()) < 40


def test_a_dataset_without_halves_is_halved(tmp_path):
    path = write(tmp_path / "a.h5", np.arange(40) % 2, half_seed=None)
    assert split(path).counts[:, 2].tolist() == [10, 10]
    assert (split(path, seed=1).test != split(path).test).any()


def test_many_classes(tmp_path):
    labels = np.arange(600) // 2
    path = write(tmp_path / "a.h5", labels)
    with Dataset(path) as dataset:
        assert dataset.labels.dtype == np.int16
        np.testing.assert_array_equal(dataset.labels, labels)
        assert len(dataset.label_names) == 300
    assert split(path).counts.tolist() == [[1, 0, 1]] * 300


@pytest.mark.parametrize("labels, names, message", [
    ([0, 0, 0, 0], ["cat", "dog"], "only images of cat: a classifier needs two"),
    ([-1, -1], ["cat", "dog"], "no image with a label"),
    ([0, 0, 1, 1], ["cat", "dog", "eel", "fox"],
     r"no images to train on of 2 of 4 classes \(eel, fox\)"),
    ([0, 0, 1, 1], ["cat", "cat"], "two classes that are called 'cat'"),
    ([0, 0, 1, 1, 3], ["cat", "dog", "eel", "fox"], "of 2 of 4 classes|of 1 of 4 classes")])
def test_classes_that_cannot_be_learned(tmp_path, labels, names, message):
    with pytest.raises(InputError, match=message):
        split(write(tmp_path / "a.h5", labels, names=names))


def test_a_class_without_test_images(tmp_path):
    # of label 0 the first group is to develop on
    with pytest.raises(InputError, match=r"no images to test on of 1 of 2 classes \(class 0\)"):
        split(write(tmp_path / "a.h5", [0, 0, 0, 1, 1], [0, 0, 0, 1, 2]))


def test_a_dataset_without_labels(tmp_path):
    with DatasetWriter(tmp_path / "a.h5", 4, 1) as writer:
        writer.append(np.zeros((4, 4, 1), np.uint8), source="s", group="s/0", original=(4, 4),
                      crop=(0, 0, 4, 4))
    with pytest.raises(InputError, match="has no labels: .*--label-from folder"):
        split(tmp_path / "a.h5")


@pytest.mark.parametrize("wrong", [-2, 2, 99])
def test_a_label_that_has_no_name(tmp_path, wrong):
    path = write(tmp_path / "a.h5", [0, 1, 0, 1])
    plain = tmp_path / "b.h5"  # as others may write it, without our seal
    with h5py.File(path) as sealed, h5py.File(plain, "w") as file:
        for item in sealed:
            sealed.copy(item, file)
        file.attrs.update(sealed.attrs)
        file["labels"][2] = wrong
    with pytest.raises(InputError, match=f"image 2 has label {wrong}, there are 2 names"):
        split(plain)


@pytest.mark.parametrize("options, message", [({"validation": 0.6}, "0.6 is not between"),
                                              ({"per_class": 0}, "0 labels per class")])
def test_numbers_have_ranges(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        split(write(tmp_path / "a.h5", [0, 1, 0, 1]), **options)
