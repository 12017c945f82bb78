"""A library that cannot do without a hidden one is imported whole."""

import subprocess
import sys
from pathlib import Path


def test_a_library_that_needs_a_hidden_one_is_whole_after_the_second_try(tmp_path: Path) -> None:
    package = tmp_path / "needy"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("import needy.inner.part\nimport scipy\n")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "part.py").write_text("value = 3\n")
    code = (
        "from ssat.core.libraries import load; load('needy'); import needy; print(needy.inner.part.value, needy.scipy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("3 <module 'scipy'"), done.stderr
