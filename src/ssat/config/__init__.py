"""The configuration: its schema, how it is composed and checked, and what a run's identity is."""
