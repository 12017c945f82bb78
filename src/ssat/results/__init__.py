"""Reports from the records of runs: tables, figures, claims, pages."""
