from tests.training.conftest import _no_pictures  # noqa: F401
