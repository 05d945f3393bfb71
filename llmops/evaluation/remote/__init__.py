"""Measures from inside the cluster: the order of a Job, the program that carries it out, and its answer.

The Job's pod has no rights in the cluster. It mounts its order, has the engines' API keys in its environment, and
writes its answer to its log.
"""
