"""Augmentations, views and perturbations of images."""
