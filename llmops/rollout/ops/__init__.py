"""Operations on the cluster that several stages share."""
