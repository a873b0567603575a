"""Names that doctests use without importing them, as a reader would."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _names(doctest_namespace):
    doctest_namespace.update(torch=torch, tensor=torch.tensor)
