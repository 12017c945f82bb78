import pytest

from ssat.config.words import FOLDERS


@pytest.fixture(autouse=True)
def only_our_files():
    """A folder that one test names is not there in the next."""
    yield
    del FOLDERS[1:]
