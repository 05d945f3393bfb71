"""Measuring from inside the cluster: the order that a Job gets, the program that carries it out, and its answer.

The Job's pod has no rights in the cluster. Its order is mounted, the engines' API keys are in its environment, and
its answer is what it writes to its log.
"""
