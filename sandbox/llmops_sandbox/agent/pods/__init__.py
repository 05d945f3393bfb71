"""Pods and their containers: from the specification to processes, and from processes to the status."""
