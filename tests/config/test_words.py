from ssat.config.words import FILES, as_typed_here, command_line


def test_a_command_is_typed_as_a_module_in_the_repository(monkeypatch):
    monkeypatch.chdir(FILES)
    assert command_line("train", ["ssl=[mae,drloc]", "seed=1"]) == "python -m src.train 'ssl=[mae,drloc]' seed=1"
    assert as_typed_here("python -m src.prepare data=svhn") == "python -m src.prepare data=svhn"


def test_a_command_is_typed_as_ssat_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command_line("evaluate", ["run=a b"]) == "ssat evaluate 'run=a b'"
    assert as_typed_here("say `python -m src.prepare data=svhn`") == "say `ssat prepare data=svhn`"
