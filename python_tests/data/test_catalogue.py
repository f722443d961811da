import numpy as np
import pytest
from data import test_cifar, test_flowers, test_pcam  # python_tests/data
from data.test_idx import write_set
from data.test_image_folder import picture

from gconv_ext.data import IMAGE_SETS, load_images
from gconv_ext.errors import InputError


def write(folder, dataset):
    if dataset in ("mnist", "fashion"):
        write_set(folder)
    elif dataset in ("cifar10", "cifar100"):
        test_cifar.write(folder, "binary", dataset)
    elif dataset == "imagenet":
        for name in ("a", "b"):
            for i in range(10):
                picture(folder / name / f"{i}.png")
    else:
        {"pcam": test_pcam, "flowers102": test_flowers}[dataset].write(folder)


@pytest.mark.parametrize("dataset", IMAGE_SETS)
def test_every_set(tmp_path, dataset):
    write(tmp_path, dataset)
    known = IMAGE_SETS[dataset]
    found = load_images(dataset, tmp_path, size=16)
    for split in ("train", "validation", "test"):
        data = found.splits[split]
        if isinstance(data, tuple):
            image, labels = data[0][0], data[1]
            assert len(data[0]) == len(labels) > 0
        else:
            image, labels = data[0][0], np.array([data[i][1] for i in range(len(data))])
        assert (image.shape[0] if image.ndim == 3 else 1) == known.channels == len(known.mean) == len(known.std)
        assert found.count(split) == len(labels)
        assert 0 <= labels.min() and labels.max() < known.classes
        if known.sizes:
            assert image.shape == (3, 16, 16)
    assert isinstance(found.origin, str) and len(found.sha256()) == 64


def test_the_package_s_digits_and_refusals(tmp_path):
    assert len(load_images("mnist").splits["train"][1]) == 5000
    for arguments, message in (
        (("svhn", tmp_path), "dataset must be one of mnist, fashion, cifar10"),
        (("cifar10",), "cifar10 does not ship with the package"),
        (("pcam",), "pcam does not ship with the package"),
    ):
        with pytest.raises(InputError, match=message):
            load_images(*arguments)
    with pytest.raises(InputError, match="imagenet cannot be downloaded from here"):
        load_images("imagenet", tmp_path, download=True)
