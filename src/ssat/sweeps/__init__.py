"""Many runs: their jobs, and where they are started."""
