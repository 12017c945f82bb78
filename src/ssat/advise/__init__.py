"""Whether SSAT will help on given data within given time: short pilots, and what they let one expect."""
