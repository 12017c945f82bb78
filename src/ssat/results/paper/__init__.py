"""The paper's tables, figures and claims beside our runs."""
