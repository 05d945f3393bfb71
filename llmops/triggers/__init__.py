"""What starts a rollout without a person: new image tags, new model revisions, changed entries."""
