"""Group-equivariant convolutions for PyTorch: strict and relaxed, with compiled kernels and a plain PyTorch reference."""

from . import functional, nn
from .algorithms import Explanation
from .convert import convert
from .deploy import to_conv2d
from .equivariance import EquivarianceError, equivariance_error
from .exactness import Exactness, LayerExactness, exactness
from .functional import explain
from .groups import PointGroup, transform_feature_map, transform_image
from .models import create_model, list_models

__version__ = "0.1.0"

__all__ = [
    "EquivarianceError",
    "Exactness",
    "Explanation",
    "LayerExactness",
    "PointGroup",
    "convert",
    "create_model",
    "equivariance_error",
    "exactness",
    "explain",
    "functional",
    "list_models",
    "nn",
    "to_conv2d",
    "transform_feature_map",
    "transform_image",
]
