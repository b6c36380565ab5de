"""Models: weights with a uri, labels and metadata; drafts until they are published (`ready`)."""
