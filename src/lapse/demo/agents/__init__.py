"""The folder of agents that `lapse serve` serves where no other is named."""
