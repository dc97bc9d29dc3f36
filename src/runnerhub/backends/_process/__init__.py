"""The rooms of the process backend: the supervisor that outlives the hub, and how the hub speaks to it."""
