"""A run before there is a cluster for it: what it will need, whether it fits, and the manifests that hold it."""
