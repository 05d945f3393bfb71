"""`llmops`: the command line. It reads arguments, calls the other rooms, and prints results.

Exit codes: 0 done (promoted, or nothing to do); 1 an error of llmops itself; 2 bad input; 3 the release was rejected;
4 not decided (Inconclusive); 5 the cluster cannot, or an outside service does not answer; 130 cancelled.
"""

from llmops.cli.app import main

__all__ = ["main"]
