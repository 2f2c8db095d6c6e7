"""One small module per system, all with the same interface (`base.Driver`)."""
