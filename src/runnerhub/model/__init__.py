"""The values: frozen, pure, and without a loop, a clock or a disk."""
