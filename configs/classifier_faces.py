"""A small CNN that recognises attributes of the procedural faces, independently of each other.

python -m experiments.train_classifier --config=configs/classifier_faces.py \
    --workdir=runs/classifier_faces

A minute and a half on two cores; ends with a mean test accuracy of about 98.3 % over twelve
attributes: above 97 % for eleven, 84 % for Smiling, whose threshold lies in the middle of all
smiles. Smaller first kernels (3x3, with learning rate 2e-3 and dropout 0.3) never find the smile.
"""

from ml_collections import ConfigDict

from configs import classifier_mnist, default


def get_config() -> ConfigDict:
    """Four strided convolutions; the attributes are those that a look at the picture decides."""
    config = classifier_mnist.get_config()
    config.data = default.get_config().data
    config.data.condition = "attributes"
    config.data.attributes = (
        "Bald",
        "Bangs",
        "Beard",
        "Black_Hair",
        "Blond_Hair",
        "Brown_Hair",
        "Eyeglasses",
        "Gray_Hair",
        "Long_Hair",
        "Mouth_Slightly_Open",
        "Smiling",
        "Wearing_Hat",
    )
    config.classifier.filters = (32, 64, 128, 128)
    config.classifier.kernel_sizes = (5, 5, 3, 3)
    config.classifier.strides = (2, 2, 2, 2)
    config.classifier.padding = ("same", "same", "same", "same")
    config.classifier.norm = "batch"
    config.classifier.dropout = 0.1
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 64
    config.train.epochs = 16
    return config
