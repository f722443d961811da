import pytest
import torch

from gconv_ext.data import load_digits, sixes


@pytest.mark.parametrize("task, move", [("180", lambda x: x.rot90(2, (-2, -1))), ("M", lambda x: x.flip(-1))])
@pytest.mark.parametrize("split, count", [("train", 500), ("validation", 100), ("test", 200)])
def test_sixes_come_in_pairs(task, move, split, count):
    digits = load_digits()
    images, labels = sixes(digits, split, task)
    assert images.shape == (2 * count, 1, 28, 28) and images.dtype == torch.float32
    assert labels.tolist() == [0] * count + [1] * count
    source, classes = digits.splits[split]
    assert torch.equal(images[:count, 0] * 255, torch.from_numpy(source[classes == 6]).float())
    assert torch.equal(images[count:], move(images[:count])) and not torch.equal(images[count:], images[:count])


def test_bad_task():
    with pytest.raises(ValueError, match="task must be one of '180', 'M', got '90'"):
        sixes(load_digits(), "train", "90")


def test_a_limit_counts_digits_of_all_classes():
    digits = load_digits()
    (images, labels), (all_images, _) = sixes(digits, "train", "180", 300), sixes(digits, "train", "180")
    count = int((digits.splits["train"][1][:300] == 6).sum())
    assert 10 < count < 60 and labels.tolist() == [0] * count + [1] * count
    assert torch.equal(images[:count], all_images[:count])
