"""SSAT: train vision transformers on little data with a self-supervised auxiliary task (Das et al., WACV 2024)."""
