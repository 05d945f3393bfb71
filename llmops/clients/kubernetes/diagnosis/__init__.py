"""What is wrong in the cluster, by statuses and events: of pods, of images, of pods that nobody may make. Pure."""
