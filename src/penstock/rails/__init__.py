"""Rails: one folder a chain family, the same verbs everywhere (`base`)."""
