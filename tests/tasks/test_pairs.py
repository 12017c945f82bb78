"""The table of tasks and encoders in the documentation is what trying them gives."""

import pytest

from tests.tasks.pairs import PAGE, replaced


@pytest.mark.slow
def test_table_of_the_documentation_is_what_trying_every_pair_gives():
    page = PAGE.read_text()
    assert replaced(page) == page
