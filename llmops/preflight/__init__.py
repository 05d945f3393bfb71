"""Whether the cluster can take a release, asked before anything is made: each finding with its remedy."""
